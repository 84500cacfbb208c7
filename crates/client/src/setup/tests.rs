use super::*;
use syncagent_vault::random::OsRandom;
use syncagent_vault::secret::Secret;

const PASSWORD: &str = "correct horse battery staple";

struct Machine {
    _dir: tempfile::TempDir,
    home: Home,
    random: OsRandom,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        Self {
            _dir: dir,
            home,
            random: OsRandom::default(),
        }
    }

    fn setup(&self) -> Setup<'_> {
        Setup {
            home: &self.home,
            random: &self.random,
            now_ms: 1_700_000_000_000,
            kdf: KdfParams::FLOOR,
        }
    }

    fn init(&self, choices: VaultChoices) -> RecoveryCode {
        let vault = self.setup().new_vault(PASSWORD, choices).unwrap();
        let code = vault.recovery_code().parse().ok().unwrap();
        self.setup().keep_vault(vault).unwrap();
        code
    }

    fn key(&self, password: &str) -> VaultKey {
        self.home.unlock(&Password::new(password)).ok().unwrap()
    }

    fn here(&self) -> Credentials {
        self.home.credentials().unwrap().unwrap()
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_new_vault_has_a_key_file_and_a_recovery_slot_to_post() {
    let machine = Machine::new();
    machine.init(VaultChoices {
        dedup_vault: true,
        cloud_slot: false,
    });
    let here = machine.here();
    let types: Vec<_> = here.pending_slots.iter().map(Slot::slot_type).collect();
    assert_eq!(types, [SlotType::Recovery]);
    assert!(here.genesis.unwrap().dedup_vault && !here.key_used);
    assert_eq!(
        machine.key(PASSWORD).check_value().unwrap(),
        here.check_value.unwrap()
    );
    assert!(
        machine
            .home
            .unlock(&Password::new("another password"))
            .is_err()
    );
}

#[test]
fn a_slot_goes_to_the_server_only_for_a_password_worth_it() {
    let machine = Machine::new();
    let choices = VaultChoices {
        cloud_slot: true,
        ..VaultChoices::default()
    };
    assert_eq!(
        machine
            .setup()
            .new_vault("password1234", choices)
            .err()
            .unwrap()
            .code(),
        Code::Usage
    );
    machine.init(choices);
    assert_eq!(machine.here().pending_slots.len(), 2);
}

#[test]
fn a_short_password_is_refused() {
    let machine = Machine::new();
    assert!(
        machine
            .setup()
            .new_vault("elevenchars", VaultChoices::default())
            .is_err()
    );
    assert!(machine.home.slot().unwrap().is_none());
}

#[test]
fn a_key_travels_with_position_and_choices() {
    let (a, b) = (Machine::new(), Machine::new());
    a.init(VaultChoices {
        dedup_vault: true,
        cloud_slot: false,
    });
    let text = a
        .setup()
        .export(&a.key(PASSWORD), "a password of its own")
        .unwrap();
    assert!(b.setup().open_export(&text, PASSWORD).is_err());
    let foreign = b
        .setup()
        .open_export(&text, "a password of its own")
        .unwrap();
    assert_eq!(
        b.setup().foreign_in_place(&foreign).unwrap(),
        InPlace::Nothing
    );
    b.setup()
        .keep_foreign(&foreign, "the other machine's")
        .unwrap();
    assert_eq!(b.setup().foreign_in_place(&foreign).unwrap(), InPlace::Same);
    let here = b.here();
    assert!(here.genesis.unwrap().dedup_vault);
    assert_eq!(
        (here.vault, here.trusted, here.pending_slots.len()),
        (a.here().vault, None, 0)
    );
    assert_eq!(
        b.key("the other machine's").check_value().unwrap(),
        a.key(PASSWORD).check_value().unwrap()
    );
}

#[test]
fn a_key_that_wrote_something_is_not_replaced_unseen() {
    let (a, b) = (Machine::new(), Machine::new());
    a.init(VaultChoices::default());
    b.init(VaultChoices::default());
    let text = a.setup().export(&a.key(PASSWORD), PASSWORD).unwrap();
    let foreign = b.setup().open_export(&text, PASSWORD).unwrap();
    assert_eq!(
        b.setup().foreign_in_place(&foreign).unwrap(),
        InPlace::Unused
    );
    b.home
        .update_credentials(&b.random, |here| here.key_used = true)
        .unwrap();
    assert_eq!(b.setup().foreign_in_place(&foreign).unwrap(), InPlace::Used);
    // What the index knows is another vault's.
    drop(Index::open(&b.home.state_path()).unwrap());
    b.setup().keep_foreign(&foreign, PASSWORD).unwrap();
    assert!(!b.home.state_path().exists());
    assert_eq!(
        (
            b.here().vault,
            b.here().pending_slots.len(),
            b.here().key_used
        ),
        (a.here().vault, 0, false)
    );
}

/// A key that came from a slot of the server, for a machine that has none.
fn from_slot(key: &VaultKey) -> ForeignKey {
    let random = OsRandom::default();
    let opener = Password::new(PASSWORD);
    let slot = Slot::seal(
        key,
        &Opener::Password(&opener),
        KdfParams::FLOOR,
        0,
        &SlotRandom::new(&random),
    );
    open_slots(&[slot.unwrap()], &Opener::Password(&opener)).unwrap()
}

#[test]
fn a_key_from_a_slot_waits_for_the_log_and_one_that_is_worked_with_does_not() {
    let (a, b) = (Machine::new(), Machine::new());
    a.init(VaultChoices::default());
    let key = a.key(PASSWORD);
    let (first, second) = (from_slot(&key), from_slot(&key));
    b.setup().keep_foreign(&first, PASSWORD).unwrap();
    assert!(first.slot().is_some() && b.here().unproven_slot == first.slot());
    // Nobody else takes this machine's word for it.
    let export = b.setup().export(&key, PASSWORD).unwrap_err();
    assert_eq!(export.code(), Code::Keyslot);
    // Joined again: the slot of this time counts.
    b.setup().keep_foreign(&second, PASSWORD).unwrap();
    assert_eq!(b.here().unproven_slot, second.slot());
    // What another machine vouches for needs no slot.
    let text = a.setup().export(&key, PASSWORD).unwrap();
    let export = b.setup().open_export(&text, PASSWORD).unwrap();
    b.setup().keep_foreign(&export, PASSWORD).unwrap();
    assert_eq!(b.here().unproven_slot, None);
    // A machine that works with this very key sets a new password by a slot, and is no newcomer for it.
    b.setup().keep_foreign(&first, PASSWORD).unwrap();
    assert_eq!(b.here().unproven_slot, None);
    // Another key under the same name is another history.
    let made_up = VaultKey::from_parts(Secret::zeroed(), key.vault());
    let made_up = from_slot(&made_up);
    drop(Index::open(&b.home.state_path()).unwrap());
    b.setup().keep_foreign(&made_up, PASSWORD).unwrap();
    assert_eq!(b.here().unproven_slot, made_up.slot());
    assert!(!b.home.state_path().exists());
}

#[test]
fn a_password_is_changed_by_sealing_again() {
    let machine = Machine::new();
    machine.init(VaultChoices {
        cloud_slot: true,
        ..VaultChoices::default()
    });
    let key = machine.key(PASSWORD);
    let before: Vec<_> = machine
        .here()
        .pending_slots
        .iter()
        .map(Slot::slot_id)
        .collect();
    assert!(
        machine
            .setup()
            .change_password(&key, "abandon-zoo-ladder-cruise-melody")
            .unwrap()
    );
    assert!(machine.home.unlock(&Password::new(PASSWORD)).is_err());
    assert_eq!(
        machine
            .key("abandon-zoo-ladder-cruise-melody")
            .check_value()
            .unwrap(),
        key.check_value().unwrap()
    );
    let after: Vec<_> = machine
        .here()
        .pending_slots
        .iter()
        .map(Slot::slot_id)
        .collect();
    assert_eq!((after.len(), after[0]), (2, before[0]));
    assert_ne!(after[1], before[1]);
}

#[test]
fn a_recovery_code_is_proved() {
    let machine = Machine::new();
    let code = machine.init(VaultChoices::default());
    let other = RecoveryCode::generate(&machine.random);
    let wrong = block(machine.setup().test_recovery(&other, None)).unwrap_err();
    assert_eq!(
        (wrong.code(), machine.here().recovery_tested),
        (Code::Keyslot, false)
    );
    block(machine.setup().test_recovery(&code, None)).unwrap();
    assert!(machine.here().recovery_tested);
}

#[test]
fn names_from_hosts() {
    for (host, want) in [
        ("laptop", "laptop"),
        ("laptop.example.org", "laptop"),
        ("Anna's MacBook", "Anna-s-MacBook"),
        ("pc", "pc-machine"),
        ("", "machine"),
        ("\u{fc}\u{fc}\u{fc}", "machine"),
        (&"x".repeat(40), &"x".repeat(32)),
    ] {
        assert_eq!(machine_name(host), want);
        assert!(is_machine_name(want));
    }
}
