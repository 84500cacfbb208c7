//! Log lines: on stderr (or stdout, where a server is told so) and in files that are thrown away after two weeks.

use std::path::Path;
use std::sync::Mutex;

use syncagent_protocol::Code;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogTo;
use crate::context::Context;
use crate::failure::{Failure, Result};

const KEPT_FILES: usize = 14;

/// Starts logging. `to` is what goes to the terminal; `dir` gets the files, with what people would not want to see scroll
/// by as well.
pub(crate) fn start(
    context: &Context,
    to: LogTo,
    usual: LevelFilter,
    dir: Option<&Path>,
) -> Result {
    let level = match (context.global.quiet, context.global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => usual,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let writer = match to {
        LogTo::Stderr => BoxMakeWriter::new(std::io::stderr),
        LogTo::Stdout => BoxMakeWriter::new(std::io::stdout),
    };
    let ours = |level: LevelFilter| {
        // Libraries below speak of every packet; what they complain of is enough.
        tracing_subscriber::filter::Targets::new()
            .with_default(level.min(LevelFilter::WARN))
            .with_targets(
                [
                    "syncagent",
                    "syncagent_client",
                    "syncagent_server",
                    "syncagent_sync",
                ]
                .map(|target| (target, level)),
            )
    };
    let terminal = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(writer)
        .with_filter(ours(level));
    let file = match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(Failure::file(Code::Write, "create", dir))?;
            let appender = RollingFileAppender::builder()
                .rotation(Rotation::DAILY)
                .filename_prefix("syncagent")
                .filename_suffix("log")
                .max_log_files(KEPT_FILES)
                .build(dir)
                .map_err(|error| {
                    Failure::new(
                        Code::Write,
                        format!("cannot write logs to {}: {error}", dir.display()),
                    )
                })?;
            let layer = tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(Mutex::new(appender));
            Some(layer.with_filter(ours(level.max(LevelFilter::INFO))))
        }
        None => None,
    };
    // Only a second start in one process can fail, and the first one goes on.
    let _ = tracing_subscriber::registry()
        .with(terminal)
        .with(file)
        .try_init();
    Ok(())
}
