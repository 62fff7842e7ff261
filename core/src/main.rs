//! The `prism` program: server and command line. It only passes the process to [`cli`].

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
