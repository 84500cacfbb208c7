//! What fuzzing begins with: everything in `vectors/v1`, what is well made and what must fail.

use data_encoding::HEXLOWER;
use serde_json::Value;

/// Every object among the cases of a file, those that must fail and what is inside of them.
fn objects(file: &str) -> Vec<Value> {
    let path = format!(
        "{}/../../vectors/v1/{file}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut found = Vec::new();
    for part in ["cases", "must_fail"] {
        for case in file[part].as_array().into_iter().flatten() {
            let inside = case.as_object().unwrap().values();
            found.extend(inside.filter_map(Value::as_array).flatten().cloned());
            found.push(case.clone());
        }
    }
    found.retain(Value::is_object);
    found
}

/// The bytes of every field of this name in a file, each once.
pub(crate) fn bytes(file: &str, fields: &[&str]) -> Vec<Vec<u8>> {
    from(file, |object| {
        let values = fields.iter().filter_map(|field| object[field].as_str());
        values.filter_map(hex).collect()
    })
}

/// What `make` makes of every object of a file, each once.
pub(crate) fn from(file: &str, make: impl Fn(&Value) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = objects(file).iter().flat_map(make).collect();
    // Large ones make everything slow and say nothing new.
    seeds.retain(|seed| seed.len() <= 40_000);
    seeds.sort();
    seeds.dedup();
    seeds
}

pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER.decode(text.as_bytes()).ok()
}

pub(crate) fn field(object: &Value, name: &str) -> Option<Vec<u8>> {
    hex(object[name].as_str()?)
}
