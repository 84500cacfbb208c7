//! Pages made of what the code says: docs/config.md from the settings, docs/reference.md and the man pages from the
//! grammar. A test fails if a page in docs/ is another one; `cargo xtask docs` makes them anew.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};
use syncagent_protocol::Code;

use crate::cli::{Cli, Page};
use crate::settings::{MACHINE, SERVER, Setting};

/// A page of docs/, whole.
pub(crate) fn page(page: Page) -> String {
    match page {
        Page::Config => config(),
        Page::Commands => commands(),
    }
}

/// Every command as a person may type it; what is for SyncAgent itself is left out.
pub(crate) fn grammar() -> Command {
    let mut grammar = Cli::command();
    // Fills in names and usage lines.
    grammar.build();
    grammar
}

const MADE: &str = "<!-- Made by `cargo xtask docs`; change the code instead. -->\n\n";

fn config() -> String {
    let mut text = format!(
        "# Settings\n\n{MADE}\
         A flag comes before a variable, a variable before the file, the file before the default. Files are TOML; a key that is\n\
         not in these tables, or a value that makes no sense, is an error that names key and file. Relative paths begin in the\n\
         current directory, those in a server's file in that file's directory.\n\n\
         ## `syncagent server`\n\n\
         `server invite` must find the same catalog: it takes `--data`, `--config`, `--db-path` and `--storage-path` and reads the\n\
         same variables and file.\n\n"
    );
    table(&mut text, SERVER);
    text.push_str(
        "\n```toml\n# /srv/syncagent/config.toml, for `syncagent server --data /srv/syncagent`\n\
         listen = \"127.0.0.1:8080\"\ndb_path = \"/ssd/syncagent.db\"\nstorage_path = \"/hdd/packs\"\n```\n\n\
         ## A machine\n\n\
         `syncagent paths` says where its `config.toml` is. `register` and `join` write it; it may be edited by hand while no\n\
         `sync` runs.\n\n",
    );
    table(&mut text, MACHINE);
    text.push_str(
        "\nThe master password itself is looked for in an order of its own: see [cli.md](cli.md#passwords).\n",
    );
    text
}

fn table(text: &mut String, settings: &[Setting]) {
    text.push_str(
        "| key in the file | flag | variable | default | meaning |\n|---|---|---|---|---|\n",
    );
    let code = |name: &str| match name {
        "" => "-".to_owned(),
        name if name.starts_with('`') => name.to_owned(),
        name => format!("`{name}`"),
    };
    for setting in settings {
        let default = match setting.default {
            "" => "-",
            default => default,
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {default} | {} |",
            code(setting.key),
            code(setting.flag),
            code(setting.variable),
            setting.meaning
        );
    }
}

fn commands() -> String {
    let grammar = grammar();
    let mut text = format!(
        "# Every command and flag\n\n{MADE}What `--help` says, on one page. What it all means stands in [cli.md](cli.md).\n\n\
         ## Everywhere\n\n"
    );
    arguments(
        &mut text,
        grammar.get_arguments().filter(|arg| arg.is_global_set()),
    );
    for command in grammar.get_subcommands() {
        section(&mut text, command, "syncagent");
    }
    text
}

fn section(text: &mut String, command: &Command, above: &str) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{above} {}", command.get_name());
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let usage: Vec<&str> = usage.lines().map(str::trim).collect();
    let _ = write!(
        text,
        "\n## {name}\n\n{about}.\n\n```\n{}\n```\n",
        usage.join("\n")
    );
    let own = || command.get_arguments().filter(|arg| !arg.is_global_set());
    if own().any(is_shown) {
        text.push('\n');
        arguments(text, own());
    }
    for below in command.get_subcommands() {
        section(text, below, &name);
    }
}

fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
}

fn arguments<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    text.push_str("| | |\n|---|---|\n");
    for arg in arguments.filter(|arg| is_shown(arg)) {
        let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let values: Vec<_> = arg
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !values.is_empty() && arg.get_action().takes_values() {
            let _ = write!(help, ": {}", values.join(", "));
        }
        let defaults = arg.get_default_values();
        if let Some(default) = defaults.first().filter(|default| !default.is_empty())
            && arg.get_action().takes_values()
        {
            let _ = write!(help, " [default: `{}`]", default.display());
        }
        // A bar would end the cell.
        let help = help.replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | {help} |", shape(arg));
    }
}

/// `-r, --recursive`, `--data DIR` or `PATH`.
fn shape(arg: &Arg) -> String {
    let value = arg
        .get_value_names()
        .filter(|_| arg.get_action().takes_values())
        .map(|names| names.join(" "))
        .unwrap_or_default();
    match (arg.get_short(), arg.get_long()) {
        (None, None) => value,
        (short, long) => {
            let short = short.map(|short| format!("-{short}"));
            let long = long.map(|long| format!("--{long}"));
            let names: Vec<String> = short.into_iter().chain(long).collect();
            format!("{} {value}", names.join(", "))
                .trim_end()
                .to_owned()
        }
    }
}

/// What the man page of the whole program ends with, as roff.
pub(crate) fn man_tail() -> String {
    let escape = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let mut text = ".SH \"EXIT STATUS\"\n".to_owned();
    let mut statuses: Vec<u8> = Code::ALL.iter().map(|code| code.exit()).collect();
    statuses.extend([0, 10]);
    statuses.sort_unstable();
    statuses.dedup();
    for status in statuses {
        let _ = writeln!(text, ".TP\n\\fB{status}\\fR");
        let codes: Vec<&str> = Code::ALL
            .iter()
            .filter(|code| code.exit() == status)
            .map(|code| code.as_str())
            .collect();
        let what = match status {
            0 => "fine".to_owned(),
            10 => "conflicts: copies were made, or wait for somebody to look at them".to_owned(),
            _ => codes.join(", "),
        };
        let _ = writeln!(text, "{}", escape(&what));
    }
    text.push_str(".SH ENVIRONMENT\n");
    for setting in SERVER.iter().chain(MACHINE) {
        if setting.variable.is_empty() {
            continue;
        }
        let meaning = escape(&setting.meaning.replace('`', ""));
        let _ = writeln!(
            text,
            ".TP\n\\fB{}\\fR\n{}",
            setting.variable,
            meaning.trim_start_matches(['.', ' '])
        );
    }
    text
}
