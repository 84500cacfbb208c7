//! One thin module for each verb: it opens what it needs, asks the library, and shows the answer.

mod agent;
mod browse;
mod conflicts;
mod doctor;
pub(crate) mod explain;
mod fingerprint;
mod ignore;
mod init;
mod join;
mod key;
mod machines;
mod paths;
mod recover;
mod recovery;
mod register;
mod reset;
mod resolve;
mod restore;
mod server;
mod shell;
mod status;
mod sync;
mod verify;

use crate::cli::{Command, ConflictsCommand, IgnoreCommand, RecoveryCommand, TrashCommand};
use crate::context::Context;
use crate::demo;
use crate::failure::Result;
use crate::reference;

/// Does what was typed; the exit status, if nothing failed on the way.
pub(crate) fn run(context: &Context, command: Command) -> Result<u8> {
    let done = match command {
        Command::Demo { dir } => demo::run(context, &dir),
        Command::Server { command, run } => server::run(context, command, &run),
        Command::Init {
            password,
            cloud_slot,
            dedup,
            recovery_file,
        } => init::run(
            context,
            &password,
            cloud_slot,
            dedup,
            recovery_file.as_deref(),
        ),
        Command::Join {
            link,
            dir,
            machine,
            password,
            export_file,
            export_password_file,
            recovery_code_file,
        } => {
            let source = join::Source {
                export_file,
                export_password_file,
                recovery_code_file,
            };
            return join::run(context, &link, dir.as_deref(), &machine, &password, &source);
        }
        Command::Register {
            server,
            token,
            machine,
            folder,
        } => register::run(
            context,
            server.as_deref(),
            &token,
            &machine,
            folder.as_deref(),
        ),
        Command::Machines { command } => machines::run(context, command),
        Command::Unlock { password } => agent::unlock(context, &password),
        Command::Lock => agent::lock(context),
        Command::ChangePassword {
            password,
            new_password_file,
        } => key::change_password(context, &password, new_password_file.as_deref()),
        Command::ExportKey {
            password,
            export_password_file,
        } => key::export(context, &password, export_password_file.as_deref()),
        Command::ImportKey {
            password,
            export_password_file,
        } => key::import(context, &password, export_password_file.as_deref()),
        Command::Recovery {
            command: RecoveryCommand::Test { code_file },
        } => recovery::test(context, code_file.as_deref()),
        Command::Fingerprint => fingerprint::run(context),
        Command::Sync {
            password,
            once,
            dry_run,
            begin,
        } => return sync::run(context, &password, once, dry_run, begin),
        Command::Status { watch, held } => return status::run(context, watch, held),
        Command::Pause => status::pause(context),
        Command::Resume => status::resume(context),
        Command::Now => status::now(context),
        Command::Ls { path, recursive } => browse::ls(context, &path, recursive),
        Command::Versions { path } => browse::versions(context, &path),
        Command::Restore {
            password,
            path,
            version,
            place,
            dry_run,
        } => return restore::version(context, &password, &path, version, place, dry_run),
        Command::Trash {
            command: None | Some(TrashCommand::List),
        } => browse::trash(context),
        Command::Trash {
            command:
                Some(TrashCommand::Restore {
                    password,
                    path,
                    place,
                    dry_run,
                }),
        } => return restore::trash(context, &password, &path, place, dry_run),
        Command::Conflicts {
            command: None | Some(ConflictsCommand::List),
        } => conflicts::list(context),
        Command::Conflicts {
            command: Some(ConflictsCommand::Diff { path }),
        } => conflicts::diff(context, &path),
        Command::Conflicts {
            command:
                Some(ConflictsCommand::Resolve {
                    password,
                    path,
                    all,
                    keep,
                    dry_run,
                }),
        } => {
            let wanted = resolve::Wanted {
                what: path.as_deref(),
                all,
                keep,
            };
            return resolve::run(context, &password, &wanted, dry_run);
        }
        Command::Explain { path } => explain::run(context, &path),
        Command::Ignore {
            command: IgnoreCommand::Check { paths },
        } => ignore::check(context, &paths),
        Command::Verify { password, sample } => return verify::run(context, &password, sample),
        Command::Recover {
            password,
            unite,
            dry_run,
        } => return recover::run(context, &password, unite, dry_run),
        Command::Doctor => return doctor::run(context),
        Command::Paths => paths::run(context),
        Command::Reset {
            new_machine,
            dry_run,
        } => reset::run(context, new_machine, dry_run),
        Command::Completions { shell } => shell::completions(context, shell),
        Command::Man { dir } => shell::man(context, dir.as_deref()),
        Command::Reference { page } => context.output.text(&reference::page(page)),
        Command::Agent => agent::be_one(context),
    };
    done.map(|()| 0)
}
