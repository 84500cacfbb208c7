//! The system's keyring on Linux, a real GNOME Keyring on a bus of its own, passes the suite of the seam.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../syncagent/tests/blackbox/patience.rs"]
mod patience;
#[path = "../../syncagent/tests/blackbox/session.rs"]
#[expect(
    dead_code,
    reason = "made for tests of the binary, which use more of it"
)]
mod session;

use std::os::unix::net::UnixListener;

use session::Session;
use syncagent_client::keyring::{self, Entry, Keyring, KeyringError, conformance};

fn open(session: &Session) -> Box<dyn Keyring> {
    keyring::system(Some(&session.address())).unwrap()
}

#[test]
fn the_secret_service_is_a_keyring() {
    let session = Session::new();
    conformance::check(&*open(&session), "x");
}

/// A daemon asks from within its runtime.
#[tokio::test]
async fn it_can_be_asked_by_somebody_who_does_other_things() {
    let session = Session::new();
    conformance::check(&*open(&session), "x");
}

#[test]
fn what_cannot_be_asked_says_why() {
    let entry = Entry {
        id: "00".into(),
        label: "x".into(),
    };
    let asked = |keyring: &dyn Keyring| {
        let asked = [
            keyring.put(&entry, b"x").err(),
            keyring.get(&entry).err(),
            keyring.remove(&entry).err(),
        ];
        asked.map(|error| error.expect("an error"))
    };
    let absent = |errors: &[KeyringError]| {
        assert!(
            errors
                .iter()
                .all(|error| matches!(error, KeyringError::Absent(_))),
            "{errors:?}"
        );
    };
    absent(&[keyring::system(None).err().unwrap()]);
    absent(&asked(
        &*keyring::system(Some("unix:path=/nowhere".as_ref())).unwrap(),
    ));
    absent(&asked(&*open(&Session::without_keyring())));
    let session = Session::new();
    let keyring = open(&session);
    keyring.put(&entry, b"x").unwrap();
    session.lock();
    assert_eq!(asked(&*keyring), [(); 3].map(|()| KeyringError::Locked));
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("silent");
    let _listener = UnixListener::bind(&socket).unwrap();
    let address = format!("unix:path={}", socket.display());
    let silent = keyring::system(Some(address.as_ref())).unwrap();
    assert_eq!(silent.get(&entry), Err(KeyringError::Silent));
}
