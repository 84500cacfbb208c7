//! The whole grammar on a page. What a verb does stands in `commands/<verb>.rs`. The first paragraph of a
//! verb is its line in `--help` and in the table of docs/cli.md, the rest is what its own `--help` and its section there say:
//! plain words that read well in a terminal.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::failure::{Failure, Result};

const FIRST_STEPS: &str = "\
First steps: `syncagent demo` shows it all on this computer. For your own folder, run `syncagent server` somewhere, then \
`init`, `register` and `sync` on the first machine, and `join` on each further one.";

/// Keeps a folder the same on all your machines, through a server that can read nothing.
#[derive(Parser)]
#[command(
    name = "syncagent",
    version,
    arg_required_else_help = true,
    after_help = FIRST_STEPS
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// What was typed. Help ends the process; a mistake in the grammar is `E_USAGE`.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self> {
        let matches = compact(Self::command()).try_get_matches_from(arguments);
        let read = matches.and_then(|matches| Self::from_arg_matches(&matches));
        read.map_err(|error| {
            if !error.use_stderr() {
                error.exit();
            }
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            Failure::usage(match error.kind() {
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    format!("a command is missing\n\n{text}")
                }
                _ => text.to_owned(),
            })
        })
    }
}

/// The same grammar with shorter help: clap spreads the flags of a command with a long text over three lines each.
fn compact(command: clap::Command) -> clap::Command {
    let text = command.get_long_about().map(ToString::to_string);
    let rest = text.and_then(|text| Some(text.split_once("\n\n")?.1.to_owned()));
    let command = match rest {
        Some(rest) => command
            .long_about(None)
            .after_help(rest)
            .help_template("{about}{after-help}\n\n{usage-heading} {usage}\n\n{all-args}"),
        None => command,
    };
    command.mut_subcommands(compact)
}

/// Under what the flags of every command stand.
const EVERYWHERE: &str = "Options of every command";

#[derive(Args, Clone, Default)]
pub(crate) struct Global {
    /// Print JSON and nothing else on stdout
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// Say more; twice: say everything
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, help_heading = EVERYWHERE, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Answer yes to every question
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub(crate) yes: bool,
    /// End when stdin does: a child that outlives its parent's kill -9 would run for ever
    #[arg(long, global = true, help_heading = EVERYWHERE, hide = true)]
    pub(crate) until_eof: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// See it work: a server and two machines on this computer
    ///
    /// Asks nothing, and runs until Ctrl-C. Started again with the same directory, it goes on with the same vault. A
    /// directory that it did not make is refused.
    Demo {
        /// Where the demonstration lives; made if it is not there
        #[arg(default_value = "syncagent-demo")]
        dir: PathBuf,
    },
    /// Run or look after a server
    ///
    /// Without a command after it, it runs one.
    #[command(args_conflicts_with_subcommands = true)]
    Server {
        #[command(subcommand)]
        command: Option<ServerCommand>,
        #[command(flatten)]
        run: Box<ServerRun>,
    },
    /// Make a new vault: its key, protected by a master password
    ///
    /// The master password has at least 12 characters. A recovery code is shown, once: keep it safe, for it opens the vault
    /// when the password is lost. Without a terminal it is printed on stdout. --recovery-file writes it into a file that
    /// only you may read.
    Init {
        #[command(flatten)]
        password: PasswordArgs,
        /// Let the server keep a password slot: the password alone then opens a new machine
        #[arg(long)]
        cloud_slot: bool,
        /// Store equal content once per file, or once in the vault: that saves space, but the server sees what is equal
        #[arg(long, value_enum, default_value = "node", value_name = "SCOPE")]
        dedup: Dedup,
        /// Write the recovery code into this new file instead of showing it
        #[arg(long, value_name = "FILE")]
        recovery_file: Option<PathBuf>,
    },
    /// Set up a further machine in one go: register, key, first pass
    ///
    /// Takes what `register` takes. The key comes through the server's password slot (`init --cloud-slot`), by the
    /// recovery code, or from a file that `export-key` made.
    ///
    /// On a machine that has the key and whose password is lost, naming one of the two files sets a new password.
    Join {
        /// Address of the server and invitation, as URL#INVITATION
        link: String,
        /// The folder [default: SyncAgent in your home directory]
        dir: Option<PathBuf>,
        #[command(flatten)]
        machine: MachineArgs,
        #[command(flatten)]
        password: PasswordArgs,
        /// Get the key from this file, made by `export-key`
        #[arg(long, value_name = "FILE", conflicts_with = "recovery_code_file")]
        export_file: Option<PathBuf>,
        /// File with the password of the export
        #[arg(long, value_name = "FILE", requires = "export_file")]
        export_password_file: Option<PathBuf>,
        /// Get the key by the recovery code in this file
        #[arg(long, value_name = "FILE")]
        recovery_code_file: Option<PathBuf>,
    },
    /// Register this machine with a server
    ///
    /// Makes the folder, too. If the invitation carries the hash of a certificate, that certificate is accepted and no
    /// other, from now on. Otherwise the system's authorities vouch for the server, or those in the file of --ca.
    ///
    /// Plain http goes to this computer only, unless --insecure is given: whoever is on the way then sees which machine
    /// talks when, and can take its place at the server, but can neither read nor forge what is in the vault.
    Register {
        /// Address of the server [default: the one in config.toml]
        #[arg(long, value_name = "URL")]
        server: Option<String>,
        /// The invitation, from `syncagent server invite`
        #[arg(long, value_name = "INVITATION")]
        token: String,
        #[command(flatten)]
        machine: MachineArgs,
        /// The folder [default: SyncAgent in your home directory]
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Show or remove the machines of the vault
    Machines {
        #[command(subcommand)]
        command: Option<MachinesCommand>,
    },
    /// Keep the key at hand, so that nothing asks for the password
    ///
    /// In the system's keyring (Secret Service, Keychain, Credential Manager) until `lock`; where there is none, or the
    /// setting `keyring` is `false`, in memory until `lock` or log-out. Says which, and why not in the keyring. A
    /// `sync` that was locked goes on.
    Unlock {
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Forget the key that `unlock` keeps; a running `sync` waits
    ///
    /// Takes the key from keyring and memory. A running `sync` stops at once, drops its own, and waits for `unlock` in
    /// the state `locked`.
    Lock,
    /// Change the master password on this machine
    ///
    /// Seals the key on this machine under the new password; nothing else changes. A password slot on the server
    /// follows with the next pass.
    ChangePassword {
        #[command(flatten)]
        password: PasswordArgs,
        /// File with the new password
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Print the key for another machine, under its own password
    ///
    /// In one line, for `import-key` or `join --export-file` there.
    ExportKey {
        #[command(flatten)]
        password: PasswordArgs,
        /// File with the password of the export
        #[arg(long, value_name = "FILE")]
        export_password_file: Option<PathBuf>,
    },
    /// Take over the key that `export-key` printed, from stdin
    ///
    /// A key with which nothing was written is replaced; otherwise it asks first, or takes --yes for an answer.
    ImportKey {
        #[command(flatten)]
        password: PasswordArgs,
        /// File with the password of the export
        #[arg(long, value_name = "FILE")]
        export_password_file: Option<PathBuf>,
    },
    /// Prove that the recovery code works
    Recovery {
        #[command(subcommand)]
        command: RecoveryCommand,
    },
    /// Six words to compare: equal words, equal history
    ///
    /// They stand for the position up to which this machine has verified the history. Two machines at one position show
    /// the same words.
    Fingerprint,
    /// Keep the folder up to date, or make one pass with --once
    ///
    /// Runs until it is ended. `status` says how things stand; `pause`, `resume` and `now` tell it what to do. One pass
    /// looks at everything, brings folder and vault together, and ends: its exit status says how it went.
    Sync {
        #[command(flatten)]
        password: PasswordArgs,
        /// Make one pass and exit
        #[arg(long)]
        once: bool,
        /// With --once: say what the pass would do, and change nothing
        #[arg(long, requires = "once")]
        dry_run: bool,
        #[command(flatten)]
        begin: Begin,
    },
    /// Say how things stand
    ///
    /// What a running `sync` says, or else what the last pass found. With --watch once more after every change, until
    /// `sync` ends. With --json, --held changes nothing: `held` has the list already.
    Status {
        /// Go on showing it
        #[arg(long)]
        watch: bool,
        /// List the files whose deletion or replacement waits for a yes
        #[arg(long, conflicts_with = "watch")]
        held: bool,
    },
    /// Stop synchronising until `resume`
    ///
    /// Told to a running `sync`.
    Pause,
    /// Go on synchronising
    ///
    /// Told to a running `sync`.
    Resume,
    /// Look for changes now
    ///
    /// Told to a running `sync`. With --yes, the change of very many files that waits for a yes at that moment
    /// (`status --held` lists it) is made. If there is more to change by the time of the pass, it waits again; if nothing
    /// waits, the yes was to nothing and is not kept.
    Now,
    /// List what is in the vault
    Ls {
        /// A directory or file in the vault
        #[arg(default_value = "")]
        path: String,
        /// Everything below it, too
        #[arg(short, long)]
        recursive: bool,
    },
    /// List the versions of a file
    ///
    /// Newest first, across renames.
    Versions {
        /// A file in the vault
        path: String,
    },
    /// Bring back a version of a file
    ///
    /// It comes back where that version was: a file that was renamed since is renamed back. What stands in its place is
    /// left alone, unless --keep-both or --replace says what to do.
    Restore {
        #[command(flatten)]
        password: PasswordArgs,
        /// A file in the vault
        path: String,
        /// The version, as `versions` lists it
        #[arg(long, value_name = "N")]
        version: u64,
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Show or restore what was deleted
    Trash {
        #[command(subcommand)]
        command: Option<TrashCommand>,
    },
    /// Show and resolve what was changed on two machines at once
    Conflicts {
        #[command(subcommand)]
        command: Option<ConflictsCommand>,
    },
    /// Say why a file is in the state it is in, and what to do
    ///
    /// Of a directory, too. Asks for no key, and may be used while `sync` runs. A path that nobody knows is exit status
    /// 3.
    Explain {
        /// A path in the folder
        path: PathBuf,
    },
    /// Say whether files are left out, and by which rule
    Ignore {
        #[command(subcommand)]
        command: IgnoreCommand,
    },
    /// Read what the server keeps and prove that it is whole
    ///
    /// Reads the content of every known version from the server, or a part of it, and checks it as a download does.
    /// Names the files and versions that a bad piece touches, and then exits with 1. Writes nothing, and may be used
    /// while `sync` runs.
    Verify {
        #[command(flatten)]
        password: PasswordArgs,
        /// Read only this many pieces of content, chosen at random
        #[arg(long, value_name = "N")]
        sample: Option<usize>,
    },
    /// Give a server restored from a backup what it has lost
    ///
    /// For a machine that stopped because the server shows an older history. Says what it will do, and whose changes
    /// were lost, and asks; then it gives those changes back as they were, other machines' too, with the content that
    /// this disk still has, and makes a pass. Nothing is deleted anywhere.
    ///
    /// Where that is not possible, or with --unite, both sides are united. Where nothing was lost, it gives the server
    /// content that it lacks. Works through a running `sync`.
    Recover {
        #[command(flatten)]
        password: PasswordArgs,
        /// Give nothing back: go on from what the server shows, and unite both sides
        #[arg(long)]
        unite: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Check everything that has to be right, and say what to do
    ///
    /// Looks at settings, key, server, clock, folder, disk space, the limit of watched directories, and what holds `sync`
    /// up, or held the last pass. Each line begins with `ok`, `look` (it works, but) or `bad`. Exits with the status of
    /// the worst `bad`.
    Doctor,
    /// Say where this machine keeps its files
    Paths,
    /// Forget what was observed and find it again
    ///
    /// Asks first, and touches no file: the next pass finds again what was forgotten. With --new-machine this machine
    /// also becomes a new one to the vault, which needs a new invitation: the way back for one that was removed.
    Reset {
        /// Also become a new machine to the vault, with a new invitation: for one that was removed
        #[arg(long)]
        new_machine: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Print the script that lets a shell complete commands
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Write them into this directory
        dir: Option<PathBuf>,
    },
    /// The process that `unlock` starts
    #[command(hide = true)]
    Agent,
    /// A page of docs/, made of the code
    #[command(hide = true)]
    Reference {
        /// Which
        page: Page,
    },
}

impl Command {
    /// Whether a process with this verb may come to have the key. A server never does.
    pub(crate) fn handles_keys(&self) -> bool {
        !matches!(self, Self::Server { .. })
    }
}

#[derive(Subcommand)]
pub(crate) enum ServerCommand {
    /// Run the server (the default)
    ///
    /// Until Ctrl-C or SIGTERM, and then ends in order. Settings may also stand in variables and in a file. Without TLS
    /// it speaks plain http, which machines on other computers refuse.
    Run(ServerRun),
    /// Print an invitation for one machine, valid for 24 hours
    ///
    /// Works beside a running server, and finds it by the same flags, variables or file. If the server's certificate
    /// vouches for itself, the invitation carries its hash.
    Invite {
        #[command(flatten)]
        places: ServerPlaces,
    },
    /// Look after vaults: after a backup was restored, or when a log has to be cut
    Admin {
        #[command(subcommand)]
        command: AdminCommand,
    },
}

#[derive(Subcommand)]
pub(crate) enum AdminCommand {
    /// Say that the server was restored from a backup
    ///
    /// For 30 days, machines may then give back what it lost although not all of it is left. Works beside a running
    /// server.
    Restored {
        /// End that now
        #[arg(long)]
        end: bool,
        #[command(flatten)]
        vault: VaultArgs,
    },
    /// Remove the end of a vault's log
    ///
    /// Lists what goes, and asks. What it names stays. Machines that have seen more stop with E_ROLLBACK. Not while the
    /// server runs.
    Cut {
        /// The last position that stays
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        to: u64,
        #[command(flatten)]
        vault: VaultArgs,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Args)]
pub(crate) struct VaultArgs {
    /// Id of the vault [default: the only one]
    #[arg(long, value_name = "ID")]
    pub(crate) vault: Option<syncagent_protocol::VaultId>,
    #[command(flatten)]
    pub(crate) places: ServerPlaces,
}

#[derive(Args)]
pub(crate) struct ServerRun {
    #[command(flatten)]
    pub(crate) places: ServerPlaces,
    /// Address and port to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Directory of the log files [default: logs in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) log_path: Option<PathBuf>,
    /// Where log lines go besides the file: stderr, or stdout for containers [default: stderr]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "WHERE")]
    pub(crate) log: Option<LogTo>,
    /// How long deleted files and old versions are kept [default: 30]. Nothing is purged yet
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) trash_retention_days: Option<u32>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

#[derive(Args, Default)]
pub(crate) struct TlsArgs {
    /// self-signed: speak TLS with a certificate made once in the data directory, which invitations name. off: plain http
    #[arg(long, value_enum, hide_possible_values = true, value_name = "HOW")]
    pub(crate) tls: Option<TlsHow>,
    /// Speak TLS with the certificate in this file (PEM, with those that lead to its authority)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// File of the certificate's key (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Host name or address that a self-signed certificate is to name besides localhost; may be repeated
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(crate) tls_name: Option<Vec<String>>,
}

#[derive(Args)]
pub(crate) struct ServerPlaces {
    /// The server's data directory
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// File of settings [default: config.toml in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// File of the catalog [default: syncagent.db in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) db_path: Option<PathBuf>,
    /// Directory of the packs [default: packs in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) storage_path: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct MachineArgs {
    /// Name of this machine [default: the computer's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Allow plain http to another computer: it then sees which machine talks when, and can take its place at the server
    #[arg(long)]
    pub(crate) insecure: bool,
    /// File of the authorities that vouch for the server (PEM) [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Args, Default)]
pub(crate) struct PasswordArgs {
    /// File whose first line is the master password
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Command whose first line of output is the master password
    #[arg(long, value_name = "COMMAND", conflicts_with = "password_file")]
    pub(crate) password_command: Option<String>,
}

/// What a daemon that was told to lock starts itself anew with.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Begin {
    /// Begin locked
    #[arg(long, hide = true, conflicts_with = "once")]
    pub(crate) locked: bool,
    /// Begin paused
    #[arg(long, hide = true, conflicts_with = "once")]
    pub(crate) paused: bool,
}

#[derive(Args, Clone, Copy, Default)]
pub(crate) struct DryRun {
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl DryRun {
    pub(crate) fn is_set(self) -> bool {
        self.dry_run
    }
}

#[derive(Args, Clone, Copy)]
pub(crate) struct PlaceArgs {
    /// If there is something in its place: restore beside it
    #[arg(long, conflicts_with = "replace")]
    pub(crate) keep_both: bool,
    /// If there is something in its place: replace it; it stays among the versions
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Subcommand)]
pub(crate) enum MachinesCommand {
    /// List the machines (the default)
    ///
    /// With each: its state, when it was last seen, and the files in sync there.
    List,
    /// Remove a machine: it gets nothing any more
    ///
    /// The removal is signed into the history, and the server ends the machine's token. Its files stay.
    ///
    /// A name is that of a machine that joined, as the verified history has it, whatever the server says. A machine that
    /// only the server names goes by its id, which `machines` shows.
    ///
    /// Without the key (exit status 11), or with the folder away (13), the token ends none the less; `machines` then
    /// says "not yet signed", and the same command again signs it.
    Remove {
        /// Its name, or its id
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Subcommand)]
pub(crate) enum RecoveryCommand {
    /// Prove that the recovery code works
    ///
    /// `status` reminds of it until it has succeeded once.
    Test {
        /// File with the code
        #[arg(long, value_name = "FILE")]
        code_file: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum TrashCommand {
    /// List what was deleted (the default)
    List,
    /// Bring back what was deleted
    ///
    /// A directory comes back with all that lies in the trash below it. If something stands in its place, --keep-both or
    /// --replace says what to do; of what was in a directory nothing replaces anything.
    Restore {
        #[command(flatten)]
        password: PasswordArgs,
        /// A path as `trash list` shows it, or an id
        path: String,
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Subcommand)]
pub(crate) enum ConflictsCommand {
    /// List the conflicts (the default)
    ///
    /// What two machines changed at once, and nobody has resolved; the same on every machine.
    List,
    /// Show in what the two differ
    ///
    /// PATH is the file that has the name (`theirs`), its conflict copy (`mine`), or the id of either. Reads what is in
    /// the folder and asks for no key. Texts up to 1 MiB and 10,000 lines are compared line by line; of the rest it
    /// says sizes and times.
    Diff {
        /// The file, its conflict copy, or the id of either
        path: String,
    },
    /// Keep one of the two, both, or the changes of both
    ///
    /// Without --keep a terminal is asked, and before --all. Each way can be taken back, and the answer says how: line by
    /// line, from the top. Works beside a running `sync`, and touches no file itself: what is edited meanwhile is kept.
    Resolve {
        #[command(flatten)]
        password: PasswordArgs,
        /// The file, its conflict copy, or the id of either
        #[arg(conflicts_with = "all")]
        path: Option<String>,
        /// All conflicts there are, instead of PATH
        #[arg(long)]
        all: bool,
        /// What to keep
        #[arg(long, value_enum, value_name = "SIDE")]
        keep: Option<KeepSide>,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepSide {
    /// What has the name; the copy goes to the trash
    Theirs,
    /// The copy: its content comes under the name, where the other becomes a version, and the copy goes to the trash
    Mine,
    /// Both, under the names they have; they are no conflict any more
    Both,
    /// The changes of both in one text, from the version both started from; where they clash, nothing is changed, and
    /// the exit status is 10
    Merge,
}

#[derive(Subcommand)]
pub(crate) enum IgnoreCommand {
    /// Say whether paths are synchronised, and which line says so
    ///
    /// Names the rule, its line, and the file it stands in.
    Check {
        /// Paths in the folder
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dedup {
    Node,
    Vault,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Page {
    /// docs/config.md
    Config,
    /// docs/cli.md
    Cli,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogTo {
    Stderr,
    Stdout,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsHow {
    Off,
    SelfSigned,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
        compact(Cli::command()).debug_assert();
    }
}
