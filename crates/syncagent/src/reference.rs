//! Pages made of what the code says: docs/config.md from the settings; docs/cli.md and the man pages from the grammar,
//! the codes, the exit statuses and the states. A test fails if a page in docs/ is another one; `cargo xtask docs` makes them anew.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};
use syncagent_protocol::Code;

use crate::cli::{Cli, Page};
use crate::commands::explain;
use crate::failure;
use crate::password;
use crate::settings::{MACHINE, OTHERS, SERVER, Setting};

mod json;

use json::JSON;

/// A page of docs/, whole.
pub(crate) fn page(page: Page) -> String {
    match page {
        Page::Config => config(),
        Page::Cli => command_line(),
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

/// docs/cli.md: prose of its own, in which a line `{name}` stands for a table.
fn command_line() -> String {
    let grammar = grammar();
    let mut text = include_str!("reference/cli.md").to_owned();
    for (name, part) in [
        ("made", MADE.trim_end().to_owned()),
        ("verbs", verbs(&grammar)),
        ("dry_run", dry_run(&grammar)),
        ("global", {
            let mut text = String::new();
            arguments(
                &mut text,
                grammar.get_arguments().filter(|arg| arg.is_global_set()),
            );
            text
        }),
        (
            "passwords",
            (1..)
                .zip(password::ORDER)
                .fold(String::new(), |text, (n, place)| {
                    format!("{text}{n}. {place}\n")
                }),
        ),
        ("statuses", statuses()),
        ("order", {
            let order = failure::Exit::ORDER.map(|status| status.to_string());
            format!("{} before {}", order[0], order[1..].join(", "))
        }),
        (
            "codes",
            rows(
                ["code", "meaning"],
                Code::ALL.map(|code| [format!("`{code}`"), code.meaning().to_owned()]),
            ),
        ),
        (
            "json",
            rows(
                ["command", "stdout"],
                JSON.iter()
                    .map(|(verbs, shape)| [(*verbs).to_owned(), (*shape).to_owned()]),
            ),
        ),
        ("explain", explained()),
        ("settings", variables()),
        (
            "others",
            rows(
                ["variable", "meaning"],
                OTHERS
                    .iter()
                    .map(|(name, meaning)| [format!("`{name}`"), (*meaning).to_owned()]),
            ),
        ),
        ("each", {
            let mut text = String::new();
            for command in grammar.get_subcommands() {
                section(&mut text, command, "syncagent");
            }
            text
        }),
    ] {
        text = text.replacen(&format!("{{{name}}}"), part.trim_end(), 1);
    }
    text
}

fn rows<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(N));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// Every command that does something by itself, with its name without `syncagent`.
fn leaves<'a>(command: &'a Command, above: &str, found: &mut Vec<(String, &'a Command)>) {
    for below in command
        .get_subcommands()
        .filter(|below| is_for_people(below))
    {
        let name = format!("{above}{}", below.get_name());
        if below.has_subcommands() {
            leaves(below, &format!("{name} "), found);
        } else {
            found.push((name, below));
        }
    }
}

fn is_for_people(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn verbs(grammar: &Command) -> String {
    let mut found = Vec::new();
    leaves(grammar, "", &mut found);
    rows(
        ["verb", "what it does"],
        found.into_iter().map(|(name, command)| {
            let about = command.get_about().map(ToString::to_string);
            let to = name.replace(' ', "-");
            [
                format!("[`{name}`](#syncagent-{to})"),
                about.unwrap_or_default(),
            ]
        }),
    )
}

/// The verbs that can say what they would do, as the beginning of a sentence.
fn dry_run(grammar: &Command) -> String {
    let mut found = Vec::new();
    leaves(grammar, "", &mut found);
    let names: Vec<String> = found
        .iter()
        .filter(|(_, command)| {
            let mut arguments = command.get_arguments();
            arguments.any(|arg| arg.get_long() == Some("dry-run"))
        })
        .map(|(name, _)| match name.as_str() {
            // The clause that requires it cannot be asked for.
            "sync" => "`sync --once`".to_owned(),
            name => format!("`{name}`"),
        })
        .collect();
    match names.split_last() {
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn statuses() -> String {
    rows(
        ["exit", "when", "codes"],
        failure::STATUSES.map(|(status, when)| {
            let codes = Code::ALL.iter().filter(|code| code.exit() == status);
            let codes: Vec<String> = codes.map(|code| format!("`{code}`")).collect();
            [status.to_string(), when.to_owned(), codes.join(" ")]
        }),
    )
}

fn explained() -> String {
    rows(
        ["state", "what it means", "what to do"],
        explain::State::ALL.map(|state| {
            let (meaning, todo) = state.meaning();
            let linked = todo.replace("docs/failures.md", "[failures.md](failures.md)");
            [format!("`{}`", state.name()), meaning.to_owned(), linked]
        }),
    )
}

fn variables() -> String {
    let of = |settings: &[Setting]| {
        let named = settings.iter().map(|setting| setting.variable);
        let named: Vec<String> = named
            .filter(|name| !name.is_empty())
            .map(|name| format!("`{name}`"))
            .collect();
        named.join(" ")
    };
    rows(
        ["of", "variables"],
        [
            ["a machine".to_owned(), of(MACHINE)],
            ["a server".to_owned(), of(SERVER)],
        ],
    )
}

/// Pages that go on about a verb.
const READ_ON: &[(&str, &str)] = &[
    (
        "syncagent server run",
        "[config.md](config.md#syncagent-server) has the settings, [server.md](server.md) the rest",
    ),
    (
        "syncagent server admin cut",
        "[What for](server.md#after-an-accident)",
    ),
    (
        "syncagent server admin restored",
        "[What for](server.md#after-an-accident)",
    ),
    (
        "syncagent conflicts list",
        "[When a conflict is resolved](decisions/0010-when-a-conflict-is-resolved.md)",
    ),
    ("syncagent explain", "[What it says](#what-explain-says)"),
    (
        "syncagent recover",
        "[A server restored from a backup](failures.md#a-server-restored-from-a-backup)",
    ),
];

fn section(text: &mut String, command: &Command, above: &str) {
    if !is_for_people(command) {
        return;
    }
    let name = format!("{above} {}", command.get_name());
    let about = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    // The first paragraph is a title in `--help` and a sentence here.
    let (first, rest) = about.split_once("\n\n").unwrap_or((&about, ""));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let usage: Vec<&str> = usage.lines().map(str::trim).collect();
    let _ = write!(text, "\n### {name}\n\n{first}.\n");
    if !rest.is_empty() {
        let _ = write!(text, "\n{rest}\n");
    }
    if let Some((_, more)) = READ_ON.iter().find(|(verb, _)| *verb == name) {
        let _ = write!(text, "\n{more}.\n");
    }
    let _ = write!(text, "\n```\n{}\n```\n", usage.join("\n"));
    let own = |command: &Command| -> Vec<Arg> {
        let arguments = command.get_arguments();
        arguments
            .filter(|arg| !arg.is_global_set() && is_shown(arg))
            .cloned()
            .collect()
    };
    let mine = own(command);
    let names = |arguments: &[Arg]| -> Vec<String> { arguments.iter().map(shape).collect() };
    let twin = command
        .get_subcommands()
        .find(|below| names(&own(below)) == names(&mine));
    if let Some(twin) = twin.filter(|_| !mine.is_empty()) {
        let _ = write!(text, "\nTakes what `{} {}` takes.\n", name, twin.get_name());
    } else if !mine.is_empty() {
        text.push('\n');
        arguments(text, mine.iter());
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
        let values = arg.get_possible_values();
        if !values.is_empty() && arg.get_action().takes_values() {
            let said = values.iter().map(|value| match value.get_help() {
                Some(said) => format!("`{}` ({said})", value.get_name()),
                None => format!("`{}`", value.get_name()),
            });
            let _ = write!(help, ": {}", said.collect::<Vec<_>>().join(", "));
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
    for (status, when) in failure::STATUSES {
        let codes: Vec<&str> = Code::ALL
            .iter()
            .filter(|code| code.exit() == status)
            .map(|code| code.as_str())
            .collect();
        let codes = match codes.is_empty() {
            true => String::new(),
            false => format!(" ({})", codes.join(", ")),
        };
        let what = format!("{}{codes}", when.replace('`', ""));
        let _ = writeln!(text, ".TP\n\\fB{status}\\fR\n{}", escape(&what));
    }
    text.push_str(".SH ENVIRONMENT\n");
    let settings = SERVER.iter().chain(MACHINE);
    let settings = settings.map(|setting| (setting.variable, setting.meaning));
    for (variable, meaning) in settings.chain(OTHERS.iter().copied()) {
        if variable.is_empty() {
            continue;
        }
        let meaning = escape(&meaning.replace('`', ""));
        let _ = writeln!(
            text,
            ".TP\n\\fB{variable}\\fR\n{}",
            meaning.trim_start_matches(['.', ' '])
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_names_exists() {
        let page = command_line();
        for name in READ_ON.iter().map(|(verb, _)| verb) {
            assert!(page.contains(&format!("### {name}\n")), "{name}");
        }
        let mut found = Vec::new();
        let grammar = grammar();
        leaves(&grammar, "", &mut found);
        for (verbs, _) in JSON {
            for verb in verbs.split('`').skip(1).step_by(2) {
                let verb = verb.split(" --").next().unwrap_or_default();
                let known = |(name, _): &(String, _)| {
                    name == verb || name.strip_suffix(" list") == Some(verb)
                };
                let is_server = verb == "server";
                assert!(
                    is_server || found.iter().any(known),
                    "{verb} in the table of JSON"
                );
            }
        }
    }

    #[test]
    fn every_verb_that_answers_has_its_document() {
        // These print what they were asked for, as it is.
        let plain = ["completions", "man"];
        let mut found = Vec::new();
        let grammar = grammar();
        leaves(&grammar, "", &mut found);
        for (name, _) in found {
            let short = name.trim_end_matches(" run");
            let is_told = JSON.iter().any(|(verbs, _)| {
                let mut verbs = verbs.split('`').skip(1).step_by(2);
                verbs.any(|verb| verb == short || Some(verb) == name.strip_suffix(" list"))
            });
            assert!(is_told || plain.contains(&name.as_str()), "{name}");
        }
    }
}
