//! A session bus of the test's own and, if wanted, a real GNOME Keyring on it. Nothing of this user's own session is
//! touched: bus, home and keyrings lie in a directory that goes with the test.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::patience::until;

/// A child that does not outlive its test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A session as a desktop has one.
pub(crate) struct Session {
    // In the order in which they end.
    keyring: Option<Service>,
    bus: Option<Service>,
    dir: tempfile::TempDir,
}

impl Session {
    /// With a keyring that was opened at log-in.
    pub(crate) fn new() -> Self {
        let mut session = Self::without_keyring();
        let mut child = Command::new("gnome-keyring-daemon")
            .args(["--foreground", "--unlock", "--components=secrets"])
            .envs(session.variables())
            .env("HOME", session.dir.path())
            .env("XDG_DATA_HOME", session.dir.path().join("data"))
            .env("XDG_RUNTIME_DIR", session.dir.path().join("run"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gnome-keyring-daemon is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(b"the password of the log-in")
            .expect("it reads its password");
        drop(stdin);
        session.keyring = Some(Service(child));
        until("the keyring", || session.has_keyring().then_some(()));
        session
    }

    /// A bus with nothing on it, and nothing that it would start.
    pub(crate) fn without_keyring() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["data", "run"] {
            let path = dir.path().join(name);
            fs::DirBuilder::new().mode(0o700).create(path).unwrap();
        }
        let config = dir.path().join("bus.conf");
        let address = address(&dir.path().join("bus"));
        let text = format!(
            "<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
        );
        fs::write(&config, text).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed");
        let stdout = bus.stdout.take().expect("a pipe");
        let bus = Some(Service(bus));
        // It says where it listens once it does.
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:"), "the bus said {line:?}");
        Self {
            keyring: None,
            bus,
            dir,
        }
    }

    /// What a process of this session finds in its environment.
    pub(crate) fn variables(&self) -> [(&'static str, OsString); 1] {
        [("DBUS_SESSION_BUS_ADDRESS", self.address())]
    }

    /// Where the bus listens.
    pub(crate) fn address(&self) -> OsString {
        address(&self.dir.path().join("bus")).into()
    }

    /// Where the keyring has its files.
    pub(crate) fn keyrings(&self) -> PathBuf {
        self.dir.path().join("data/keyrings")
    }

    /// How many entries of SyncAgent the keyring has.
    pub(crate) fn entries(&self) -> usize {
        let found = self.send(
            "org.freedesktop.secrets",
            "/org/freedesktop/secrets",
            "org.freedesktop.Secret.Service.SearchItems",
            "dict:string:string:application,syncagent",
        );
        found.matches("object path").count()
    }

    /// Locks what the log-in had unlocked, as a screen lock may.
    pub(crate) fn lock(&self) {
        let collection = "/org/freedesktop/secrets/collection/login";
        let locked = self.send(
            "org.freedesktop.secrets",
            "/org/freedesktop/secrets",
            "org.freedesktop.Secret.Service.Lock",
            &format!("array:objpath:{collection}"),
        );
        assert!(locked.contains(collection), "{locked}");
    }

    /// Ends keyring and bus.
    pub(crate) fn end(&mut self) {
        self.keyring = None;
        self.bus = None;
    }

    fn has_keyring(&self) -> bool {
        let owned = self.send(
            "org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus.NameHasOwner",
            "string:org.freedesktop.secrets",
        );
        owned.contains("boolean true")
    }

    fn send(&self, to: &str, path: &str, method: &str, argument: &str) -> String {
        let output = Command::new("dbus-send")
            .args(["--session", "--print-reply", &format!("--dest={to}")])
            .args([path, method, argument])
            .envs(self.variables())
            .output()
            .expect("dbus-send is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn address(socket: &Path) -> String {
    format!("unix:path={}", socket.display())
}
