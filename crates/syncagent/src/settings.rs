//! Settings that have more than one place to stand: a flag comes before a variable, a variable before the file, the
//! file before the default.
//!
//! The two tables say what there is; docs/config.md is made of them (`cargo xtask docs`).

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use syncagent_client::home::{Config, Home};
use syncagent_protocol::Code;
use syncagent_protocol::api::is_machine_name;
use syncagent_server::Places;
use syncagent_server::tls::{Certificate, is_name};

use crate::cli::{LogTo, ServerPlaces, ServerRun, TlsArgs, TlsHow};
use crate::context::Context;
use crate::directories;
use crate::failure::{Failure, Result};

/// One setting, and what it is called in each place; empty where it has none.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) flag: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
}

/// Of `syncagent server`.
pub(crate) const SERVER: &[Setting] = &[
    Setting {
        key: "data",
        flag: "--data",
        variable: "SYNCAGENT_DATA",
        default: "`$XDG_DATA_HOME/syncagent-server` (`~/.local/share`); on Windows `%LOCALAPPDATA%\\SyncAgent-Server`",
        meaning: "the data directory, `DATA` below. In a file only where `--config` names it: the file in `DATA` cannot say where `DATA` is",
    },
    Setting {
        key: "",
        flag: "--config",
        variable: "SYNCAGENT_CONFIG",
        default: "`DATA/config.toml`, if it is there",
        meaning: "the file",
    },
    Setting {
        key: "listen",
        flag: "--listen",
        variable: "SYNCAGENT_LISTEN",
        default: "`127.0.0.1:8080`",
        meaning: "address and port to listen on",
    },
    Setting {
        key: "tls",
        flag: "--tls",
        variable: "SYNCAGENT_TLS",
        default: "`off`, unless there is a `tls_cert`",
        meaning: "`self-signed`: TLS with a certificate that is made once, in `DATA/tls`, and whose hash stands in every invitation; `off`: plain http",
    },
    Setting {
        key: "tls_cert",
        flag: "--tls-cert",
        variable: "SYNCAGENT_TLS_CERT",
        default: "",
        meaning: "TLS with the certificate in this file (PEM), followed by those that lead to its authority. Read again whenever it changes",
    },
    Setting {
        key: "tls_key",
        flag: "--tls-key",
        variable: "SYNCAGENT_TLS_KEY",
        default: "",
        meaning: "the key of that certificate (PEM)",
    },
    Setting {
        key: "tls_name",
        flag: "--tls-name",
        variable: "SYNCAGENT_TLS_NAME",
        default: "",
        meaning: "what a self-signed certificate is to name besides `localhost` and the loopback addresses, separated by commas. Machines do not look at names where an invitation told them the certificate",
    },
    Setting {
        key: "db_path",
        flag: "--db-path",
        variable: "SYNCAGENT_DB_PATH",
        default: "`DATA/syncagent.db`",
        meaning: "the catalog's file; SQLite puts its `-wal` and `-shm` beside it",
    },
    Setting {
        key: "storage_path",
        flag: "--storage-path",
        variable: "SYNCAGENT_STORAGE_PATH",
        default: "`DATA/packs`",
        meaning: "the directory of the packs, which hold all content",
    },
    Setting {
        key: "log_path",
        flag: "--log-path",
        variable: "SYNCAGENT_LOG_PATH",
        default: "`DATA/logs`",
        meaning: "the directory of the log files",
    },
    Setting {
        key: "log",
        flag: "--log",
        variable: "SYNCAGENT_LOG",
        default: "`stderr`",
        meaning: "where log lines go besides the file: `stderr` or `stdout`",
    },
    Setting {
        key: "trash_retention_days",
        flag: "--trash-retention-days",
        variable: "SYNCAGENT_TRASH_RETENTION_DAYS",
        default: "`30`",
        meaning: "how long deleted files and old versions are kept, in days, 1 to 36500. This version purges nothing, whatever stands here; it says so when it starts",
    },
];

/// Of one machine.
pub(crate) const MACHINE: &[Setting] = &[
    Setting {
        key: "server",
        flag: "`register --server`",
        variable: "SYNCAGENT_SERVER",
        default: "",
        meaning: "address of the server, `http://` or `https://`",
    },
    Setting {
        key: "name",
        flag: "`register --name`",
        variable: "SYNCAGENT_NAME",
        default: "the computer's",
        meaning: "name of this machine, in the names of conflict copies, too: 3 to 32 of `A-Z a-z 0-9 _ -`",
    },
    Setting {
        key: "folder",
        flag: "`register --folder`",
        variable: "SYNCAGENT_FOLDER",
        default: "`SyncAgent` in the home directory",
        meaning: "the synchronised folder. Another one than before is a missing folder (`E_ROOT`) until `reset`",
    },
    Setting {
        key: "insecure",
        flag: "`register --insecure`",
        variable: "",
        default: "`false`",
        meaning: "allow plain http to another computer",
    },
    Setting {
        key: "certificate",
        flag: "",
        variable: "",
        default: "from the invitation",
        meaning: "SHA-256 of the server's certificate (DER): the only one that is accepted, whatever name or date it carries",
    },
    Setting {
        key: "ca",
        flag: "`register --ca`",
        variable: "SYNCAGENT_CA",
        default: "the system's",
        meaning: "file of the authorities (PEM) that vouch for the server where no `certificate` is known, and no others",
    },
    Setting {
        key: "password_command",
        flag: "`--password-command`",
        variable: "SYNCAGENT_PASSWORD_COMMAND",
        default: "",
        meaning: "command whose first line of output is the master password",
    },
    Setting {
        key: "keyring",
        flag: "",
        variable: "SYNCAGENT_KEYRING",
        default: "`true`",
        meaning: "`unlock` keeps the key in the system's keyring, if there is one: Secret Service, Keychain, Credential Manager. `false`: always in memory, until log-out",
    },
    Setting {
        key: "closed_ms",
        flag: "",
        variable: "SYNCAGENT_CLOSED_MS",
        default: "`100`",
        meaning: "`sync` waits this long after a file was closed, in milliseconds",
    },
    Setting {
        key: "quiet_ms",
        flag: "",
        variable: "SYNCAGENT_QUIET_MS",
        default: "`250`",
        meaning: "... and this long after any other change",
    },
    Setting {
        key: "settle_ms",
        flag: "",
        variable: "SYNCAGENT_SETTLE_MS",
        default: "`3000`",
        meaning: "... but no longer than this for a file that is written over and over",
    },
    Setting {
        key: "full_scan_s",
        flag: "",
        variable: "SYNCAGENT_FULL_SCAN_S",
        default: "`300`",
        meaning: "seconds from one look at the whole folder to the next, at least 10",
    },
];

/// Variables that are no settings, and what they mean.
pub(crate) const OTHERS: &[(&str, &str)] = &[
    (
        "SYNCAGENT_HOME",
        "one directory for everything of this machine",
    ),
    (
        "SYNCAGENT_PASSWORD_FILE",
        "file whose first line is the master password",
    ),
    (
        "SYNCAGENT_DUMPS",
        "`true` allows core dumps and debuggers also for processes that may have the key",
    ),
    ("NO_COLOR", "no colours"),
];

/// How a server is to run.
pub(crate) struct ServerSettings {
    pub(crate) places: Places,
    pub(crate) listen: SocketAddr,
    pub(crate) log_dir: PathBuf,
    pub(crate) log: LogTo,
    /// None if nobody said anything.
    pub(crate) retention_days: Option<u32>,
    /// None for plain http.
    pub(crate) tls: Option<Certificate>,
    /// What the certificate is to stand for.
    pub(crate) tls_names: Vec<String>,
}

impl ServerSettings {
    pub(crate) fn new(context: &Context, run: &ServerRun) -> Result<Self> {
        let (places, source) = places(context, &run.places)?;
        let listen = source.get("listen", run.listen, |text, _| {
            text.parse()
                .map_err(|_| "no address such as 127.0.0.1:8080".to_owned())
        })?;
        let log = source.get("log", run.log, |text, _| match text {
            "stderr" => Ok(LogTo::Stderr),
            "stdout" => Ok(LogTo::Stdout),
            _ => Err("neither stderr nor stdout".to_owned()),
        })?;
        let retention_days = source.get(
            "trash_retention_days",
            run.trash_retention_days,
            |text, _| number(text, 1, 36_500),
        )?;
        let log_dir = source.path("log_path", run.log_path.as_deref())?;
        let tls_names = tls_names(&source, run.tls.tls_name.clone())?;
        Ok(Self {
            tls: tls(&source, &run.tls)?.flatten(),
            tls_names,
            listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
            log_dir: log_dir.unwrap_or_else(|| places.data.join("logs")),
            log: log.unwrap_or(LogTo::Stderr),
            retention_days,
            places,
        })
    }
}

/// Where a server keeps what it has, and what variables and file say about its certificate: nothing, that there is
/// none, or which.
pub(crate) fn server_places(
    context: &Context,
    flags: &ServerPlaces,
) -> Result<(Places, Option<Option<Certificate>>)> {
    let (places, source) = places(context, flags)?;
    let tls = tls(&source, &TlsArgs::default())?;
    Ok((places, tls))
}

fn tls(source: &Source<'_>, flags: &TlsArgs) -> Result<Option<Option<Certificate>>> {
    let how = source.get("tls", flags.tls, |text, _| match text {
        "off" => Ok(TlsHow::Off),
        "self-signed" => Ok(TlsHow::SelfSigned),
        _ => Err("neither off nor self-signed".to_owned()),
    })?;
    let certificate = source.path("tls_cert", flags.tls_cert.as_deref())?;
    let key = source.path("tls_key", flags.tls_key.as_deref())?;
    Ok(match (how, certificate, key) {
        (Some(TlsHow::Off), _, _) => Some(None),
        (Some(TlsHow::SelfSigned), None, None) => Some(Some(Certificate::SelfSigned {
            names: tls_names(source, flags.tls_name.clone())?,
        })),
        (None, Some(certificate), Some(key)) => Some(Some(Certificate::Files { certificate, key })),
        (None, None, None) => None,
        (Some(TlsHow::SelfSigned), _, _) => {
            return Err(Failure::usage(
                "a certificate is either self-signed or in files: leave out `tls`, or `tls_cert` and `tls_key`",
            ));
        }
        (None, _, _) => {
            return Err(Failure::usage(
                "`tls_cert` and `tls_key` (--tls-cert, --tls-key) go together: a certificate's file, and its key's",
            ));
        }
    })
}

fn tls_names(source: &Source<'_>, flag: Option<Vec<String>>) -> Result<Vec<String>> {
    if let Some(name) = flag.iter().flatten().find(|name| !is_name(name)) {
        return Err(Failure::usage(format!(
            "--tls-name is '{name}', no host name and no address"
        )));
    }
    let names = source.get("tls_name", flag, |text, _| {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.iter().all(|name| is_name(name)) {
            true => Ok(names),
            false => Err("no host names and addresses with commas between".to_owned()),
        }
    })?;
    Ok(names.unwrap_or_default())
}

fn places<'a>(context: &'a Context, flags: &ServerPlaces) -> Result<(Places, Source<'a>)> {
    let named = match &flags.config {
        Some(file) => Some(file.clone()),
        None => context.variables.path("SYNCAGENT_CONFIG"),
    };
    let mut source = Source {
        context,
        settings: SERVER,
        file: None,
    };
    if let Some(file) = named {
        let path = context.absolute(&file);
        let text =
            std::fs::read_to_string(&path).map_err(Failure::file(Code::Read, "read", &path))?;
        source.file = Some(File::parse(path, &text, SERVER)?);
    }
    let data = match source.path("data", flags.data.as_deref())? {
        Some(data) => data,
        None => directories::server_data(&context.variables)?,
    };
    if source.file.is_none() {
        let path = data.join("config.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let file = File::parse(path, &text, SERVER)?;
                if file.values.contains_key("data") {
                    return Err(Failure::usage(format!(
                        "`data` cannot be set in {}, which lies in the data directory: use --data, or --config with a file \
                         elsewhere",
                        file.path.display()
                    )));
                }
                source.file = Some(file);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file(Code::Read, "read", &path)(error)),
        }
    }
    let mut places = Places::below(data);
    if let Some(database) = source.path("db_path", flags.db_path.as_deref())? {
        places.database = database;
    }
    if let Some(packs) = source.path("storage_path", flags.storage_path.as_deref())? {
        places.packs = packs;
    }
    Ok((places, source))
}

/// What a machine is set to: its file, and the variables that come before it.
pub(crate) fn machine(context: &Context, home: &Home) -> Result<Config> {
    let mut config = home.config()?;
    let source = Source {
        context,
        settings: MACHINE,
        file: None,
    };
    let text = |key, before: Option<String>| -> Result<Option<String>> {
        Ok(source
            .get(key, None, |text, _| Ok(text.to_owned()))?
            .or(before))
    };
    let ms = |key, before: Option<u64>| -> Result<Option<u64>> {
        Ok(source
            .get(key, None, |text, _| number(text, 0, 3_600_000))?
            .or(before))
    };
    config.server = text("server", config.server)?;
    config.name = text("name", config.name)?;
    config.password_command = text("password_command", config.password_command)?;
    config.keyring = switch(context, "SYNCAGENT_KEYRING")?.or(config.keyring);
    config.folder = source.path("folder", None)?.or(config.folder);
    config.ca = source.path("ca", None)?.or(config.ca);
    config.closed_ms = ms("closed_ms", config.closed_ms)?;
    config.quiet_ms = ms("quiet_ms", config.quiet_ms)?;
    config.settle_ms = ms("settle_ms", config.settle_ms)?;
    let scan = source.get("full_scan_s", None, |text, _| number(text, 10, 86_400))?;
    config.full_scan_s = scan.or(config.full_scan_s);
    let file = home.config_path();
    let wrong = |what: &str| {
        Failure::usage(format!(
            "{what} (it stands in {}, or in a variable)",
            file.display()
        ))
    };
    if config.full_scan_s.is_some_and(|seconds| seconds < 10) {
        return Err(wrong("`full_scan_s` must be at least 10"));
    }
    if let Some(name) = config.name.as_deref().filter(|name| !is_machine_name(name)) {
        let what =
            format!("`name` is '{name}', but takes 3 to 32 of the characters A-Z a-z 0-9 _ -");
        return Err(wrong(&what));
    }
    if let Some(folder) = config
        .folder
        .as_deref()
        .filter(|folder| !folder.is_absolute())
    {
        let what = format!(
            "`folder` is '{}', but takes a whole path from the root",
            folder.display()
        );
        return Err(wrong(&what));
    }
    Ok(config)
}

/// A variable that is `true` or `false`.
pub(crate) fn switch(context: &Context, variable: &'static str) -> Result<Option<bool>> {
    match context.variables.get(variable) {
        None => Ok(None),
        Some(value) if value == "true" => Ok(Some(true)),
        Some(value) if value == "false" => Ok(Some(false)),
        Some(value) => Err(Failure::usage(format!(
            "{variable} is '{}', neither true nor false",
            value.display()
        ))),
    }
}

/// A whole number within its bounds.
fn number<T: FromStr + PartialOrd + Display>(
    text: &str,
    least: T,
    most: T,
) -> std::result::Result<T, String> {
    match text.parse::<T>() {
        Ok(n) if n >= least && n <= most => Ok(n),
        _ => Err(format!("no whole number from {least} to {most}")),
    }
}

/// Variables and a file, for what no flag says.
struct Source<'a> {
    context: &'a Context,
    settings: &'static [Setting],
    file: Option<File>,
}

impl Source<'_> {
    /// A setting by its key. `parse` also gets the directory that a relative path begins at.
    fn get<T>(
        &self,
        key: &str,
        flag: Option<T>,
        parse: impl Fn(&str, &Path) -> std::result::Result<T, String>,
    ) -> Result<Option<T>> {
        if flag.is_some() {
            return Ok(flag);
        }
        let variable = self
            .settings
            .iter()
            .find(|setting| setting.key == key)
            .map_or("", |setting| setting.variable);
        if !variable.is_empty()
            && let Some(value) = self.context.variables.get(variable)
        {
            let wrong =
                |why: String| Failure::usage(format!("{variable} is '{}', {why}", value.display()));
            let text = value.to_str().ok_or_else(|| wrong("not text".to_owned()))?;
            return parse(text, &self.context.current_dir)
                .map(Some)
                .map_err(wrong);
        }
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let Some(value) = file.values.get(key) else {
            return Ok(None);
        };
        let text = match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let base = file.path.parent().unwrap_or(&self.context.current_dir);
        let wrong = |why| {
            let path = file.path.display();
            Failure::usage(format!("`{key}` in {path} is '{text}', {why}"))
        };
        parse(&text, base).map(Some).map_err(wrong)
    }

    fn path(&self, key: &str, flag: Option<&Path>) -> Result<Option<PathBuf>> {
        let flag = flag.map(|path| self.context.absolute(path));
        self.get(key, flag, |text, base| Ok(base.join(text)))
    }
}

/// A file of settings.
struct File {
    path: PathBuf,
    values: toml::Table,
}

impl File {
    fn parse(path: PathBuf, text: &str, settings: &[Setting]) -> Result<Self> {
        let shown = path.display();
        let values: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                text[..span.start.min(text.len())].matches('\n').count() + 1
            });
            Failure::usage(format!("{shown}, line {line}: {}", error.message()))
        })?;
        let known = |key: &String| settings.iter().any(|setting| setting.key == *key);
        if let Some(key) = values.keys().find(|key| !known(key)) {
            let keys: Vec<&str> = settings.iter().map(|setting| setting.key).collect();
            let keys = keys.join(" ");
            return Err(Failure::usage(format!(
                "{shown}: there is no setting `{key}`. There are: {}",
                keys.trim()
            )));
        }
        Ok(Self { path, values })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::context::VARIABLES;

    #[test]
    fn every_variable_is_read_and_every_one_of_ours_is_told() {
        let settings = SERVER.iter().chain(MACHINE).map(|setting| setting.variable);
        let others = OTHERS.iter().map(|(name, _)| *name);
        let told: BTreeSet<&str> = settings
            .chain(others)
            .filter(|name| !name.is_empty())
            .collect();
        for variable in &told {
            assert!(VARIABLES.contains(variable), "{variable} is not read");
        }
        for variable in VARIABLES {
            let is_ours = variable.starts_with("SYNCAGENT_");
            assert!(
                !is_ours || told.contains(variable),
                "{variable} is not told"
            );
        }
    }

    #[test]
    fn the_table_of_a_machine_is_what_its_file_may_hold() {
        let config = Config {
            server: Some(String::new()),
            name: Some(String::new()),
            folder: Some(PathBuf::new()),
            password_command: Some(String::new()),
            keyring: Some(true),
            insecure: true,
            certificate: Some(String::new()),
            ca: Some(PathBuf::new()),
            closed_ms: Some(1),
            quiet_ms: Some(1),
            settle_ms: Some(1),
            full_scan_s: Some(1),
        };
        let held = toml::Table::try_from(&config).unwrap();
        let held: BTreeSet<&str> = held.keys().map(String::as_str).collect();
        let table: BTreeSet<&str> = MACHINE.iter().map(|setting| setting.key).collect();
        assert_eq!(held, table);
    }

    #[test]
    fn an_unknown_key_and_a_slip_are_named_with_their_file() {
        let parse = |text: &str| File::parse("/etc/x.toml".into(), text, SERVER).map(drop);
        assert!(parse("listen = \"127.0.0.1:1\"\ndb_path = \"x\"").is_ok());
        let unknown = parse("lisen = 1").unwrap_err();
        assert_eq!(unknown.code, Code::Usage);
        assert!(
            unknown.message.contains("`lisen`")
                && unknown.message.contains("/etc/x.toml")
                && unknown.message.contains("listen"),
            "{unknown}"
        );
        let slip = parse("listen = \"a\"\nlog = ").unwrap_err();
        assert!(slip.message.contains("/etc/x.toml, line 2"), "{slip}");
    }
}
