//! Reads vectors so that nothing in them can go unnoticed: an unread field, an empty list and a
//! must-fail case that is accepted all fail the test.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use syncagent_protocol::{Code, VaultId};
use syncagent_vault::keys::{EPOCH, Keys, VaultKey};
use syncagent_vault::random::Random;
use syncagent_vault::secret::Secret;

/// What came of reading a must-fail case: the code it was refused with, if the reader has codes.
pub(crate) type Refusal = Result<(), Option<Code>>;

/// An object of a vector that knows which of its fields were read, and insists on all.
pub(crate) struct Fields<'a> {
    what: String,
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Fields<'a> {
    fn new(what: String, value: &'a Value) -> Self {
        let map = value
            .as_object()
            .unwrap_or_else(|| panic!("{what} is no object"));
        Self {
            what,
            map,
            read: RefCell::default(),
        }
    }

    pub(crate) fn name(&self) -> &'a str {
        self.text("name")
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn value(&self, key: &str) -> &'a Value {
        let Some((key, value)) = self.map.get_key_value(key) else {
            panic!("{}: there is no field {key}", self.what);
        };
        self.read.borrow_mut().insert(key);
        value
    }

    /// A step on the way to something else that is compared, and that no caller of the crate can see.
    pub(crate) fn implied_by_the_rest(&self, key: &str) {
        self.value(key);
    }

    pub(crate) fn text(&self, key: &str) -> &'a str {
        let value = self.value(key);
        value
            .as_str()
            .unwrap_or_else(|| panic!("{}: {key} is no text", self.what))
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        let value = self.value(key);
        value
            .as_u64()
            .unwrap_or_else(|| panic!("{}: {key} is no number", self.what))
    }

    pub(crate) fn byte(&self, key: &str) -> u8 {
        self.number(key).try_into().unwrap()
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.value(key);
        value
            .as_bool()
            .unwrap_or_else(|| panic!("{}: {key} is neither true nor false", self.what))
    }

    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        unhex(self.text(key))
    }

    pub(crate) fn array<const N: usize>(&self, key: &str) -> [u8; N] {
        let bytes = self.bytes(key);
        bytes
            .try_into()
            .unwrap_or_else(|_| panic!("{}: {key} has not {N} bytes", self.what))
    }

    pub(crate) fn values(&self, key: &str) -> &'a [Value] {
        let value = self.value(key);
        value
            .as_array()
            .unwrap_or_else(|| panic!("{}: {key} is no list", self.what))
    }

    pub(crate) fn texts(&self, key: &str) -> Vec<&'a str> {
        let values = self.values(key).iter();
        values.map(|value| value.as_str().unwrap()).collect()
    }

    pub(crate) fn numbers(&self, key: &str) -> Vec<u64> {
        let values = self.values(key).iter();
        values.map(|value| value.as_u64().unwrap()).collect()
    }

    pub(crate) fn object(&self, key: &str) -> Fields<'a> {
        Fields::new(format!("{}, {key}", self.what), self.value(key))
    }

    pub(crate) fn objects(&self, key: &str) -> Vec<Fields<'a>> {
        let values = self.values(key).iter().enumerate();
        values
            .map(|(i, value)| Fields::new(format!("{}, {key} {i}", self.what), value))
            .collect()
    }

    /// `content`: pieces, joined.
    pub(crate) fn pieces(&self, key: &str) -> Vec<u8> {
        self.objects(key).iter().flat_map(piece).collect()
    }

    /// The vault key of the fields `vault_key`, `vid` and `epoch`.
    pub(crate) fn vault_key(&self) -> VaultKey {
        assert_eq!(self.number("epoch"), u64::from(EPOCH));
        VaultKey::from_parts(
            Secret::copy_from(&self.array("vault_key")),
            VaultId(self.array("vid")),
        )
    }

    pub(crate) fn keys(&self) -> Keys {
        self.vault_key().keys().unwrap()
    }

    /// The keys of the vault `vid` where a vault key plays no part.
    pub(crate) fn keys_of_vid_alone(&self) -> Keys {
        let key = VaultKey::from_parts(Secret::zeroed(), VaultId(self.array("vid")));
        key.keys().unwrap()
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let read = self.read.borrow();
        let unread: Vec<&String> = self
            .map
            .keys()
            .filter(|key| !read.contains(key.as_str()))
            .collect();
        assert!(unread.is_empty(), "{}: nobody read {unread:?}", self.what);
    }
}

fn piece(piece: &Fields<'_>) -> Vec<u8> {
    if piece.has("hex") {
        return piece.bytes("hex");
    }
    let len = piece.number("length") as usize;
    match piece.text("generator") {
        "sha256_counter" => {
            let seed = piece.bytes("seed");
            let mut out = Vec::with_capacity(len + 32);
            for i in 0u64.. {
                if out.len() >= len {
                    break;
                }
                let block = syncagent_protocol::sha256(&[&seed, &i.to_be_bytes()]);
                out.extend_from_slice(&block);
            }
            out.truncate(len);
            out
        }
        "repeat" => vec![piece.byte("byte"); len],
        other => panic!("there is no generator {other}"),
    }
}

/// A generator that gives what the other implementation drew.
pub(crate) struct Drawn(pub(crate) [u8; 32]);

impl Random for Drawn {
    fn fill(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    syncagent_protocol::sha256(&[bytes])
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/v1")
}

/// The names of all files of vectors, sorted.
pub(crate) fn files() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(".json").unwrap_or(&name).to_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn load(file: &str) -> Value {
    let path = directory().join(format!("{file}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Goes through a file: compares every case, and makes sure that everything in `must_fail` is refused.
pub(crate) fn check(
    file: &Value,
    case: impl Fn(&Fields<'_>),
    refuse: impl Fn(&str, &Fields<'_>) -> Refusal,
    code: impl Fn(&str) -> Option<Code>,
) {
    let file = Fields::new("the file".into(), file);
    file.text("description");
    assert_eq!(file.number("format"), 1);
    let mut names = BTreeSet::new();
    let cases = file.objects("cases");
    assert!(!cases.is_empty(), "there are no cases");
    for fields in cases {
        assert!(names.insert(fields.name()), "{} twice", fields.name());
        println!("{}", fields.name());
        case(&fields);
    }
    if !file.has("must_fail") {
        return;
    }
    let must_fail = file.objects("must_fail");
    assert!(!must_fail.is_empty(), "there are no cases that must fail");
    for fields in must_fail {
        let (name, rule) = (fields.name(), fields.text("rule"));
        assert!(names.insert(name), "{name} twice");
        println!("{name}, {rule}");
        match refuse(fields.text("parsed_as"), &fields) {
            Ok(()) => panic!("{name} was accepted; it breaks {rule}"),
            Err(refused) => assert_eq!(refused, code(rule), "{name}, {rule}"),
        }
    }
}

/// For files without must-fail cases.
pub(crate) fn nothing_is_refused(_: &str, fields: &Fields<'_>) -> Refusal {
    panic!("nobody reads {}", fields.name());
}

mod tests {
    use serde_json::json;

    use super::*;

    fn check_one(case: Value, must_fail: Value, refused: Refusal) {
        let file = json!({"description": "", "format": 1, "cases": case, "must_fail": must_fail});
        let code = |_: &str| Some(Code::Chunk);
        check(
            &file,
            |fields| assert_eq!(fields.number("a"), 1),
            |_, _| refused,
            code,
        );
    }

    fn good() -> (Value, Value) {
        let wrong = json!([{"name": "y", "rule": "r", "parsed_as": "p"}]);
        (json!([{"name": "x", "a": 1}]), wrong)
    }

    #[test]
    fn what_agrees_passes() {
        let (case, wrong) = good();
        check_one(case, wrong, Err(Some(Code::Chunk)));
    }

    #[test]
    #[should_panic = "there are no cases"]
    fn no_cases() {
        check_one(json!([]), good().1, Err(Some(Code::Chunk)));
    }

    #[test]
    #[should_panic = "there are no cases that must fail"]
    fn no_cases_that_must_fail() {
        check_one(good().0, json!([]), Err(Some(Code::Chunk)));
    }

    #[test]
    #[should_panic = "nobody read"]
    fn a_field_that_nobody_reads() {
        let case = json!([{"name": "x", "a": 1, "b": 2}]);
        check_one(case, good().1, Err(Some(Code::Chunk)));
    }

    #[test]
    #[should_panic = "was accepted"]
    fn something_wrong_that_is_accepted() {
        let (case, wrong) = good();
        check_one(case, wrong, Ok(()));
    }

    #[test]
    #[should_panic = "assertion"]
    fn something_wrong_that_is_refused_with_another_code() {
        let (case, wrong) = good();
        check_one(case, wrong, Err(Some(Code::Limit)));
    }
}
