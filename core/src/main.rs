//! The `prism` program: server and command line. All it does is hand the process over to [`cli`].

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
