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
use crate::field::{Done, Field, tree};

const PASSWORD: &str = "seven words that nobody would ever guess together";
const OTHER: &str = "seven other words that came to somebody some days later";
const KEYSLOT: (&str, i32) = ("E_KEYSLOT", 11);
const KDF_POLICY: (&str, i32) = ("E_KDF_POLICY", 11);

fn slot(key: &VaultKey, opener: &Opener<'_>) -> Slot {
    let random = SlotRandom::new(&OsRandom::default());
    Slot::seal(key, opener, KdfParams::FLOOR, 0, &random).unwrap()
}

/// What a person has to join with. The other password is the one that came after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum With {
    Password,
    OtherPassword,
    Code,
}

/// A vault with a password slot and a recovery slot, both on the server and pinned in the log.
struct Slots<'a> {
    court: Court<'a>,
    code: RecoveryCode,
    joins: std::cell::Cell<u32>,
}

/// A machine that is about to join, and has a file that it would send.
struct Newcomer {
    name: String,
    home: PathBuf,
    folder: PathBuf,
    link: String,
}

impl Newcomer {
    /// Nothing came into the folder, and nothing went.
    #[track_caller]
    fn assert_untouched(&self, case: &str) {
        let own = PathBuf::from(format!("of {}", self.name));
        assert_eq!(tree::walk(&self.folder), [own], "{case}: it was written to");
    }
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
        slots.pin(slots.by_password(PASSWORD));
        slots.pin(slot(&slots.court.key, &Opener::Recovery(&slots.code)));
        fs::write(field.path("master password"), format!("{PASSWORD}\n")).unwrap();
        fs::write(field.path("other password"), format!("{OTHER}\n")).unwrap();
        fs::write(
            field.path("recovery code"),
            format!("{}\n", *slots.code.to_text()),
        )
        .unwrap();
        slots
    }

    fn by_password(&self, password: &str) -> Slot {
        slot(&self.court.key, &Opener::Password(&Password::new(password)))
    }

    /// A puts a slot on the server and pins it.
    fn pin(&self, slot: Slot) {
        let home = syncagent_client::home::Home::at(&self.court.a.home);
        let mut credentials = home.credentials().unwrap().unwrap();
        credentials.pending_slots.push(slot);
        home.save_credentials(&credentials).unwrap();
        self.court.a.sync_once();
    }

    fn newcomer(&self) -> Newcomer {
        let n = self.joins.get() + 1;
        self.joins.set(n);
        let field = self.court.field;
        let newcomer = Newcomer {
            name: format!("newcomer-{n}"),
            home: field.path(&format!("home {n}")),
            folder: field.path(&format!("newcomer {n}")),
            link: format!("{}#{}", self.court.liar.url(), self.court.a.invitation()),
        };
        fs::create_dir(&newcomer.folder).unwrap();
        let own = newcomer.folder.join(format!("of {}", newcomer.name));
        fs::write(own, "not to be sent to a liar").unwrap();
        newcomer
    }

    fn file_of(&self, with: With) -> String {
        let name = match with {
            With::OtherPassword => "other password",
            With::Password | With::Code => "master password",
        };
        self.court.field.path(name).to_str().unwrap().to_owned()
    }

    /// It tries to join, the first time or again.
    fn join(&self, newcomer: &Newcomer, with: With) -> Done {
        let run = |args: &[&str]| self.court.field.try_run(&newcomer.home, args, "");
        self.join_by(newcomer, with, run)
    }

    fn join_by<T>(&self, newcomer: &Newcomer, with: With, run: impl FnOnce(&[&str]) -> T) -> T {
        let (password, code) = (self.file_of(with), self.court.field.path("recovery code"));
        let mut args = vec![
            "join",
            &newcomer.link,
            newcomer.folder.to_str().unwrap(),
            "--name",
            &newcomer.name,
            "--password-file",
            &password,
        ];
        if with == With::Code {
            args.extend(["--recovery-code-file", code.to_str().unwrap()]);
        }
        run(&args)
    }

    /// It tries to go on as if it had joined.
    fn sync(&self, newcomer: &Newcomer, with: With) -> Done {
        let password = self.file_of(with);
        let args = ["sync", "--once", "--password-file", &password];
        self.court.field.try_run(&newcomer.home, &args, "")
    }

    /// It is refused with this code, again after a restart, and nothing of the vault is here. Told the truth, it joins.
    #[track_caller]
    fn refuses(
        &self,
        case: &str,
        with: With,
        codes: (&str, i32),
        lie: impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static,
    ) {
        let newcomer = self.newcomer();
        self.refuses_for_now(&newcomer, case, with, codes, lie);
        self.comes_through(case, &newcomer, with);
    }

    /// The same, and the next lie comes before the truth.
    #[track_caller]
    fn refuses_for_now(
        &self,
        newcomer: &Newcomer,
        case: &str,
        with: With,
        codes: (&str, i32),
        lie: impl Fn(&Request, &Honest) -> Said + Send + Sync + 'static,
    ) {
        self.court.liar.lie(lie);
        for start in ["first", "second"] {
            let done = self.join(newcomer, with);
            crate::court::assert_code(&format!("{case}, {start} start"), &done, codes.0, codes.1);
            newcomer.assert_untouched(case);
        }
        self.court.assert_nothing_sent(case);
    }

    /// Told the truth, it joins, and goes on.
    #[track_caller]
    fn comes_through(&self, case: &str, newcomer: &Newcomer, with: With) {
        self.court.liar.tell_the_truth();
        for done in [self.join(newcomer, with), self.sync(newcomer, with)] {
            assert_eq!(done.exit, 0, "{case}, and then the truth: {done}");
        }
        assert_eq!(fs::read(newcomer.folder.join("a")).unwrap(), b"1", "{case}");
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

/// Less than the least memory that a derivation may take, and more than one run differs from the next.
#[cfg(target_os = "linux")]
const MUCH_KIB: u64 = 32 * 1024;

#[test]
fn a_slot_outside_the_policy_is_refused_before_anything_is_derived() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let good = slots.by_password(PASSWORD);
    let bad: Vec<_> = [
        ("less memory than allowed", 8, 65_535u32),
        ("no memory", 8, 0),
        ("more memory than allowed", 8, 1_048_577),
        ("four terabytes of memory", 8, u32::MAX),
        ("fewer passes than allowed", 12, 2),
        ("more passes than allowed", 12, 17),
        ("passes for ever", 12, u32::MAX),
    ]
    .map(|(case, at, value)| (case, with(&good, at, &value.to_be_bytes())))
    .into_iter()
    .chain(
        [("no lanes", 0), ("nine lanes", 9), ("255 lanes", 255)]
            .map(|(case, lanes)| (case, with(&good, 16, &[lanes]))),
    )
    .collect();
    let began = Instant::now();
    let newcomer = slots.newcomer();
    for (case, bad) in &bad {
        let lie = serves(bad.clone());
        slots.refuses_for_now(&newcomer, case, With::Password, KDF_POLICY, lie);
    }
    slots.comes_through("a slot within the policy", &newcomer, With::Password);
    // One derivation at such a cost would take hours, if it did not take the machine down.
    assert!(began.elapsed() < Duration::from_secs(60));
}

/// What a derivation takes is seen in the memory of the process, so one that is not made is seen, too.
#[cfg(target_os = "linux")]
#[test]
fn a_slot_outside_the_policy_takes_no_memory() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let good = slots.by_password(PASSWORD);
    let newcomer = slots.newcomer();
    let peak = |lie: Vec<u8>, codes: (&str, i32)| {
        slots.court.liar.lie(serves(lie));
        let run = |args: &[&str]| field.try_run_measured(&newcomer.home, args);
        let (done, peak) = slots.join_by(&newcomer, With::Password, run);
        crate::court::assert_code("measured", &done, codes.0, codes.1);
        peak
    };
    // It goes as far, and nothing in it can be derived from.
    let nothing = peak(good.as_bytes()[1..].to_vec(), KEYSLOT);
    // The control: the least derivation there is.
    let wrong = slots.by_password(OTHER).as_bytes().to_vec();
    let derived = peak(wrong, KEYSLOT);
    assert!(
        derived > nothing + MUCH_KIB,
        "{derived} KiB, and {nothing} without a derivation"
    );
    for (case, at, value) in [
        ("less memory than allowed", 8, 65_535u32),
        ("more memory than allowed", 8, 1_048_577),
        ("four terabytes of memory", 8, u32::MAX),
        ("fewer passes than allowed", 12, 2),
        ("passes for ever", 12, u32::MAX),
    ] {
        let refused = peak(with(&good, at, &value.to_be_bytes()), KDF_POLICY);
        assert!(
            refused < nothing + MUCH_KIB,
            "{case}: {refused} KiB, and {nothing} without a derivation"
        );
    }
}

#[test]
fn a_slot_that_is_not_the_vaults_own_is_refused() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let court = &slots.court;
    let password = Password::new(PASSWORD);
    let recovery = slot(&court.key, &Opener::Recovery(&slots.code));
    let newcomer = slots.newcomer();
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
        slots.refuses_for_now(&newcomer, &case, With::Code, KEYSLOT, serves(bad));
    }
    slots.comes_through("a slot without a wrong bit", &newcomer, With::Code);
    slots.refuses(
        "a byte less",
        With::Code,
        KEYSLOT,
        serves(recovery.as_bytes()[1..].to_vec()),
    );
    slots.refuses(
        "a megabyte",
        With::Code,
        ("E_LIMIT", 14),
        serves(vec![1; 1 << 20]),
    );

    let other = VaultKey::generate(&OsRandom::default());
    let foreign = slot(&other, &Opener::Password(&password));
    let sealed_elsewhere = foreign.as_bytes().to_vec();
    slots.refuses(
        "another vault's slot with the same password",
        With::Password,
        ("E_VAULT", 14),
        serves(sealed_elsewhere),
    );
    let renamed = with(&foreign, 36, &court.key.vault().0);
    slots.refuses(
        "the same with this vault's id",
        With::Password,
        KEYSLOT,
        serves(renamed),
    );
}

#[test]
fn a_bit_in_any_field_of_a_password_slot_is_found() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let good = slots.by_password(PASSWORD);
    let newcomer = slots.newcomer();
    for (case, at, bit, codes) in [
        ("magic", 0, 1, KEYSLOT),
        ("version", 4, 1, KEYSLOT),
        ("type: none", 5, 1, KEYSLOT),
        ("type: the other", 5, 3, KEYSLOT),
        ("kdf: the other", 6, 3, KEYSLOT),
        ("flags", 7, 1, KEYSLOT),
        ("memory, within the policy", 11, 1, KEYSLOT),
        ("memory, outside of it", 8, 0x80, KDF_POLICY),
        ("passes, within the policy", 15, 4, KEYSLOT),
        ("passes, outside of it", 15, 1, KDF_POLICY),
        ("lanes, within the policy", 16, 1, KEYSLOT),
        ("lanes, outside of it", 16, 0x10, KDF_POLICY),
        ("first reserved byte", 17, 1, KEYSLOT),
        ("second reserved byte", 18, 0x80, KEYSLOT),
        ("third reserved byte", 19, 1, KEYSLOT),
        ("salt", 20, 1, KEYSLOT),
        ("end of the salt", 35, 0x80, KEYSLOT),
        ("vault", 36, 1, KEYSLOT),
        ("end of the vault", 51, 0x80, KEYSLOT),
        ("epoch", 55, 1, KEYSLOT),
        ("time", 63, 1, KEYSLOT),
        ("id", 64, 1, KEYSLOT),
        ("commitment", 80, 1, KEYSLOT),
        ("end of the commitment", 111, 0x80, KEYSLOT),
        ("nonce", 112, 1, KEYSLOT),
        ("end of the nonce", 123, 0x80, KEYSLOT),
        ("sealed key", 124, 1, KEYSLOT),
        ("end of the sealed key", 155, 0x80, KEYSLOT),
        ("tag", 156, 1, KEYSLOT),
        ("end of the tag", 171, 0x80, KEYSLOT),
    ] {
        let bad = with(&good, at, &[good.as_bytes()[at] ^ bit]);
        let case = format!("a bit in a password slot's {case}");
        slots.refuses_for_now(&newcomer, &case, With::Password, codes, serves(bad));
    }
    slots.comes_through("a slot without a wrong bit", &newcomer, With::Password);
}

fn with_vault(vault: VaultId) -> VaultKey {
    use syncagent_vault::random;
    VaultKey::from_parts(random::secret(&OsRandom::default()), vault)
}

/// A key that somebody made up and sealed with the right secret: it opens, and the log does not.
#[test]
fn a_made_up_key_is_refused_and_does_not_stay() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let court = &slots.court;
    let password = Password::new(PASSWORD);
    let commit = ("E_COMMIT", 14);
    let made_up = with_vault(court.key.vault());
    for (with, opener) in [
        (With::Password, Opener::Password(&password)),
        (With::Code, Opener::Recovery(&slots.code)),
    ] {
        let lie = slot(&made_up, &opener).as_bytes().to_vec();
        let case = format!("a made-up key, {with:?}");
        slots.refuses(&case, with, commit, serves(lie.clone()));

        // It says what to do, after `reset`, too, and gives the key to nobody.
        court.liar.lie(serves(lie));
        let newcomer = slots.newcomer();
        let run = |args: &[&str]| field.try_run(&newcomer.home, args, "");
        slots.join(&newcomer, with);
        assert_eq!(run(&["reset", "--yes"]).exit, 0);
        let done = slots.sync(&newcomer, with);
        crate::court::assert_code(&case, &done, commit.0, commit.1);
        assert!(done.stderr.contains("Run `syncagent join` "), "{done}");
        let file = slots.file_of(with);
        let export = [
            "export-key",
            "--password-file",
            &file,
            "--export-password-file",
            &file,
        ];
        crate::court::assert_code(&case, &run(&export), KEYSLOT.0, KEYSLOT.1);
        newcomer.assert_untouched(&case);
        court.assert_nothing_sent(&case);
        slots.comes_through(&case, &newcomer, with);
    }
}

#[test]
fn a_slot_that_was_replaced_is_known_for_old() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let court = &slots.court;
    let old = ["slots/1", "slots/2"].map(|slot| court.ask("GET", slot, Vec::new()).body);
    slots.pin(slots.by_password(OTHER));
    // The code is the same: only the log says that this slot counts no longer.
    slots.pin(slot(&court.key, &Opener::Recovery(&slots.code)));
    for (old, with, now) in [
        (&old[0], With::Password, With::OtherPassword),
        (&old[1], With::Code, With::Code),
    ] {
        let case = format!("an old slot, {with:?}");
        court.liar.lie(serves(old.clone()));
        let newcomer = slots.newcomer();
        for start in [
            "join",
            "join again",
            "sync",
            "reset and sync",
            "join once more",
        ] {
            if start.starts_with("reset") {
                let reset = field.try_run(&newcomer.home, &["reset", "--yes"], "");
                assert_eq!(reset.exit, 0, "{reset}");
            }
            let done = match start.ends_with("sync") {
                true => slots.sync(&newcomer, with),
                false => slots.join(&newcomer, with),
            };
            let case = format!("{case}: {start}");
            crate::court::assert_code(&case, &done, KEYSLOT.0, KEYSLOT.1);
            newcomer.assert_untouched(&case);
        }
        court.assert_nothing_sent(&case);
        // Honest again, the server does not make an old slot a good one.
        court.liar.tell_the_truth();
        let done = slots.sync(&newcomer, with);
        crate::court::assert_code(&case, &done, KEYSLOT.0, KEYSLOT.1);
        newcomer.assert_untouched(&case);
        slots.comes_through(&case, &newcomer, now);
    }
}

/// A log that is said not to have begun vouches for nothing: the newcomer begins none of its own.
#[test]
fn a_vault_said_to_be_empty_gets_no_first_commit_of_a_newcomer() {
    let field = Field::new();
    let slots = Slots::new(&field);
    for with in [With::Password, With::Code] {
        let case = format!("an empty log, {with:?}");
        let nothing = crate::court::shows(Vec::new(), 0);
        slots.refuses(&case, with, KEYSLOT, nothing);
    }
}

/// A slot that the log names once the machine has read it is proven for good, whatever replaces it later.
#[test]
fn a_slot_is_proven_once_and_before_anything_else() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let court = &slots.court;
    // The key comes, and then the line is cut.
    court
        .liar
        .lie(|request, honest| match request.is("GET", "/commits") {
            true => Said::Raw(Vec::new()),
            false => honest.ask(request).into(),
        });
    let newcomers = [With::Password, With::Code].map(|with| (slots.newcomer(), with));
    for (newcomer, with) in &newcomers {
        let done = slots.join(newcomer, *with);
        crate::court::assert_code("cut off", &done, "E_OFFLINE", 5);
    }
    court.liar.tell_the_truth();
    for (newcomer, with) in &newcomers {
        let done = slots.sync(newcomer, *with);
        assert_eq!(done.exit, 0, "{with:?}: {done}");
    }
    slots.pin(slots.by_password(OTHER));
    slots.pin(slot(&court.key, &Opener::Recovery(&slots.code)));
    for (newcomer, with) in &newcomers {
        let done = slots.sync(newcomer, *with);
        assert_eq!(done.exit, 0, "{with:?}: {done}");
        assert_eq!(fs::read(newcomer.folder.join("a")).unwrap(), b"1");
    }
}

/// A slot that is put and not pinned yet, by a machine that was cut off in between: the pass that pins it lets everybody in.
#[test]
fn a_slot_that_the_log_does_not_name_yet_waits_for_it() {
    let field = Field::new();
    let slots = Slots::new(&field);
    let court = &slots.court;
    let next = slots.by_password(OTHER);
    let put = court.ask("PUT", "slots/1", next.as_bytes().to_vec());
    assert_eq!(put.status, 204);
    court.liar.tell_the_truth();
    let newcomer = slots.newcomer();
    for _ in 0..2 {
        let done = slots.join(&newcomer, With::OtherPassword);
        crate::court::assert_code("not pinned", &done, KEYSLOT.0, KEYSLOT.1);
        newcomer.assert_untouched("not pinned");
    }
    court.assert_nothing_sent("not pinned");
    slots.pin(next);
    let done = slots.sync(&newcomer, With::OtherPassword);
    assert_eq!(done.exit, 0, "{done}");
    slots.comes_through("pinned", &newcomer, With::OtherPassword);
}
