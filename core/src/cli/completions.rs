//! `prism completions`: a script for the shell, made from the same definitions that parse the
//! arguments.

use std::io::Write as _;

use clap::Args;
use clap_complete::Shell;

use super::{Failure, command};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bash:  prism completions bash > ~/.local/share/bash-completion/completions/prism
  zsh:   prism completions zsh > ~/.zfunc/_prism
  fish:  prism completions fish > ~/.config/fish/completions/prism.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "prism", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
