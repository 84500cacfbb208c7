//! Lies about key slots, told to a machine that joins with what a person knows: a password or the recovery code.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use syncagent_protocol::VaultId;
use syncagent_vault::keys::VaultKey;
use syncagent_vault::op::Genesis;
use syncagent_vault::random::OsRandom;
use syncagent_vault::recovery::RecoveryCode;
use syncagent_vault::slot::{KdfParams, Opener, Password, Slot, SlotRandom};

use crate::court::Court;
use crate::field::liar::{Answer, Honest, Request, Said};
use crate::field::{Done, Field};

const PASSWORD: &str = "seven words that nobody would ever guess together";

fn slot(key: &VaultKey, opener: &Opener<'_>) -> Slot {
    let random = SlotRandom::new(&OsRandom::default());
    Slot::seal(key, opener, KdfParams::FLOOR, 0, &random).unwrap()
}

/// A vault with a password slot and a recovery slot, both on the server and pinned in the log.
struct Slots<'a> {
    court: Court<'a>,
    code: RecoveryCode,
    joins: std::cell::Cell<u32>,
}

/// A machine that has what it takes to join.
struct Newcomer {
    name: String,
    home: PathBuf,
    folder: PathBuf,
    link: String,
}

impl<'a> Slots<'a> {
    fn new(field: &'a Field) -> Self {
        let court = Court::new(field, Genesis::default());
        let code = RecoveryCode::generate(&OsRandom::default());
        court.put(&[("a", b"1")]);
        let slots = Self {
            court,
            code,
            joins: std::cell::Cell::new(0),
        };
        slots.pin(slot(
            &slots.court.key,
            &Opener::Password(&Password::new(PASSWORD)),
        ));
        slots.pin(slot(&slots.court.key, &Opener::Recovery(&slots.code)));
        fs::write(field.path("master password"), format!("{PASSWORD}\n")).unwrap();
        fs::write(
            field.path("recovery code"),
            format!("{}\n", *slots.code.to_text()),
        )
        .unwrap();
        slots
    }

    /// A puts a slot on the server and pins it.
    fn pin(&self, slot: Slot) {
        let home = syncagent_client::home::Home::at(&self.court.a.home);
        let mut credentials = home.credentials().unwrap().unwrap();
        credentials.pending_slots.push(slot);
        home.save_credentials(&credentials).unwrap();
        self.court.a.sync_once();
    }

    /// A new machine joins by way of the liar.
    fn join(&self, with_code: bool) -> (Done, PathBuf) {
        let newcomer = self.newcomer();
        (self.try_join(&newcomer, with_code), newcomer.folder)
    }

    fn newcomer(&self) -> Newcomer {
        let n = self.joins.get() + 1;
        self.joins.set(n);
        let field = self.court.field;
        Newcomer {
            name: format!("newcomer-{n}"),
            home: field.path(&format!("home {n}")),
            folder: field.path(&format!("newcomer {n}")),
            link: format!("{}#{}", self.court.liar.url(), self.court.a.invitation()),
        }
    }

    /// It tries to join, the first time or again.
    fn try_join(&self, newcomer: &Newcomer, with_code: bool) -> Done {
        let Newcomer {
            name,
            home,
            folder,
            link,
        } = newcomer;
        let field = self.court.field;
        let password = field.path("master password");
        let code = field.path("recovery code");
        let mut args = vec![
            "join",
            link,
            folder.to_str().unwrap(),
            "--name",
            name,
            "--password-file",
            password.to_str().unwrap(),
        ];
        if with_code {
            args.extend(["--recovery-code-file", code.to_str().unwrap()]);
        }
        field.try_run(home, &args, "")
    }

    /// It is refused with this code, again after a restart, and nothing of the vault is here.
    #[track_caller]
    fn refuses(
        &self,
        case: &str,
        with_code: bool,
        codes: (&str, i32),
        lie: impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static,
    ) {
        self.court.liar.lie(lie);
        let newcomer = self.newcomer();
        for start in ["first", "second"] {
            let done = self.try_join(&newcomer, with_code);
            crate::court::assert_code(&format!("{case}, {start} start"), &done, codes.0, codes.1);
            let has_files = newcomer.folder.join("a").exists();
            assert!(!has_files, "{case}: it has the files");
        }
        self.court.assert_nothing_sent(case);
    }
}

/// Serves this in place of every slot.
fn serves(slot: Vec<u8>) -> impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static {
    move |request, honest| match request.method == "GET" && request.path.contains("/slots/") {
        true => Answer::new(200, "application/octet-stream", slot.clone()).into(),
        false => honest.ask(request).into(),
    }
}

fn with(slot: &Slot, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = slot.as_bytes().to_vec();
    out[at..at + bytes.len()].copy_from_slice(bytes);
    out
}

#[test]
fn a_slot_outside_the_policy_is_refused_before_anything_is_derived() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let good = slot(
        &slots.court.key,
        &Opener::Password(&Password::new(PASSWORD)),
    );
    let began = Instant::now();
    for (case, at, value) in [
        ("less memory than allowed", 8, 65_535u32),
        ("no memory", 8, 0),
        ("more memory than allowed", 8, 1_048_577),
        ("four terabytes of memory", 8, u32::MAX),
        ("fewer passes than allowed", 12, 2),
        ("passes for ever", 12, u32::MAX),
    ] {
        let bad = with(&good, at, &value.to_be_bytes());
        slots.refuses(case, false, ("E_KDF_POLICY", 11), serves(bad));
    }
    for (case, lanes) in [("no lanes", 0), ("255 lanes", 255)] {
        let bad = with(&good, 16, &[lanes]);
        slots.refuses(case, false, ("E_KDF_POLICY", 11), serves(bad));
    }
    // One derivation at such a cost would take hours, if it did not take the machine down.
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_slot_that_is_not_the_vaults_own_is_refused() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let court = &slots.court;
    let password = Password::new(PASSWORD);
    let recovery = slot(&court.key, &Opener::Recovery(&slots.code));
    let keyslot = ("E_KEYSLOT", 11);
    for (case, at) in [
        ("magic", 0),
        ("version", 4),
        ("kdf", 6),
        ("flags", 7),
        ("salt", 20),
        ("epoch", 55),
        ("time", 63),
        ("id", 64),
        ("commitment", 80),
        ("nonce", 112),
        ("sealed key", 124),
        ("tag", 171),
    ] {
        let bad = with(&recovery, at, &[recovery.as_bytes()[at] ^ 1]);
        let case = format!("a bit in the {case} of a slot");
        slots.refuses(&case, true, keyslot, serves(bad));
    }
    slots.refuses(
        "a byte less",
        true,
        keyslot,
        serves(recovery.as_bytes()[1..].to_vec()),
    );
    slots.refuses(
        "a megabyte",
        true,
        ("E_LIMIT", 14),
        serves(vec![1; 1 << 20]),
    );

    let other = VaultKey::generate(&OsRandom::default());
    let foreign = slot(&other, &Opener::Password(&password));
    let sealed_elsewhere = foreign.as_bytes().to_vec();
    slots.refuses(
        "another vault's slot with the same password",
        false,
        ("E_VAULT", 14),
        serves(sealed_elsewhere),
    );
    let renamed = with(&foreign, 36, &court.key.vault().0);
    slots.refuses(
        "the same with this vault's id",
        false,
        keyslot,
        serves(renamed),
    );
    // A key that somebody made up and sealed with the right password: it opens, and the log does not.
    let made_up = with_vault(court.key.vault());
    let made_up = slot(&made_up, &Opener::Password(&password))
        .as_bytes()
        .to_vec();
    slots.refuses(
        "a made-up key under this vault's id",
        false,
        ("E_COMMIT", 14),
        serves(made_up),
    );
}

fn with_vault(vault: VaultId) -> VaultKey {
    use syncagent_vault::random;
    VaultKey::from_parts(random::secret(&OsRandom::default()), vault)
}

#[test]
fn a_slot_that_was_replaced_is_known_for_old() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let court = &slots.court;
    let old = court.ask("GET", "slots/2", Vec::new()).body;
    // The code is the same: only the log says that this slot counts no longer.
    slots.pin(slot(&court.key, &Opener::Recovery(&slots.code)));
    let code = |done: &Done| (done.exit, done.stderr.contains("E_KEYSLOT"));
    court.liar.lie(serves(old));
    let newcomer = slots.newcomer();
    for _ in 0..2 {
        let done = slots.try_join(&newcomer, true);
        assert_eq!(code(&done), (11, true), "{done}");
    }
    // Told the truth, it joins.
    court.liar.tell_the_truth();
    let done = slots.try_join(&newcomer, true);
    assert_eq!(done.exit, 0, "{done}");
    assert_eq!(fs::read(newcomer.folder.join("a")).unwrap(), b"1");
    let (done, folder) = slots.join(false);
    assert_eq!(done.exit, 0, "{done}");
    assert_eq!(fs::read(folder.join("a")).unwrap(), b"1");
}
