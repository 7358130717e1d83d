//! Completions and manual pages, made from the flags.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use crate::console::print;
use crate::error::Error;
use crate::settings;

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete for; put what is printed where it looks for completions
    shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write a page for the program and for each subcommand into this directory, instead of the
    /// program's to stdout
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut to_complete(&Cli::command()),
        "heartline",
        &mut script,
    );
    print(&script).map(|()| ExitCode::SUCCESS)
}

pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Error> {
    let pages = pages()?;
    let Some(dir) = &args.dir else {
        return print(&pages[0].1).map(|()| ExitCode::SUCCESS);
    };
    for (name, page) in pages {
        let path = dir.join(name);
        fs::write(&path, page).map_err(Error::io(format!("write {}", path.display())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The command for completions: clap_complete completes hidden subcommands as well, which clap
/// cannot remove, and offers the value of a switch as a word of its own, which would be read as an
/// address.
fn to_complete(command: &Command) -> Command {
    let alone = |arg: &Arg| match arg.get_long() {
        Some(long) if settings::is_switch(arg) => {
            let help = arg.get_help().cloned().unwrap_or_default();
            Arg::new(leaked(arg.get_id().as_str()))
                .long(leaked(long))
                .help(help)
                .action(ArgAction::SetTrue)
        }
        _ => arg.clone(),
    };
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut copy = Command::new(leaked(command.get_name()))
        .args(command.get_arguments().map(alone))
        .subcommands(shown.map(to_complete));
    if let Some(about) = command.get_about() {
        copy = copy.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        copy = copy.version(leaked(version));
    }
    copy
}

/// clap needs names with a static lifetime, and the process ends after the script.
fn leaked(name: &str) -> &'static str {
    name.to_owned().leak()
}

/// All pages, each with the name of its file; the program's own comes first.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    Ok(pages)
}

/// The pages of a command and of all below it.
fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    pages.push((format!("{name}.1"), page(command)?));
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| collect(command, pages))
}

fn page(command: &Command) -> Result<Vec<u8>, Error> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .map_err(Error::io("render a page"))?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether troff reads every backslash of the line as intended.
    fn is_escaped(line: &str) -> bool {
        // clap_mangen escapes text, but nothing in a request: these are the requests with
        // backslashes of their own.
        let own = [r".ie \n(.g .ds Aq \(aq", r".IP \(bu 2"];
        if line.starts_with('.') {
            return own.contains(&line) || !line.contains('\\');
        }
        let mut rest = line;
        while let Some((_, escape)) = rest.split_once('\\') {
            let known = [r"\", "-", "fB", "fI", "fR", "*(Aq", "&"];
            let Some(known) = known.into_iter().find(|known| escape.starts_with(known)) else {
                return false;
            };
            rest = &escape[known.len()..];
        }
        true
    }

    #[test]
    fn no_text_of_the_help_is_taken_for_an_escape_of_troff() {
        assert!(is_escaped(r"ping\\n \fB\-\-send\fR"));
        assert!(
            !is_escaped(r"ping\n") && !is_escaped(r".SH A\\B"),
            "in a request it would have to be escaped once more"
        );
        for (name, page) in pages().expect("they can be made") {
            let page = String::from_utf8(page).expect("text");
            for line in page.lines() {
                assert!(is_escaped(line), "{name}: {line}");
            }
        }
    }
}
