//! What the shell and `man` want to know, made from the flags themselves.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use crate::error::Error;

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete for; put what is printed where it looks for completions
    shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write a page for the program and for each subcommand into this directory, instead of the program's to stdout
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "heartline", &mut script);
    print(&script)
}

pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Error> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.dir else { return print(&page(&command)?) };
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    for (name, page) in pages {
        let path = dir.join(name);
        fs::write(&path, page).map_err(Error::io(format!("write {}", path.display())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The pages of a command and of all below it, each with the name of its file.
fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    pages.push((format!("{name}.1"), page(command)?));
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|command| collect(command, pages))
}

fn page(command: &Command) -> Result<Vec<u8>, Error> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).map_err(Error::io("render a page"))?;
    Ok(page)
}

fn print(bytes: &[u8]) -> Result<ExitCode, Error> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write stdout")(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
