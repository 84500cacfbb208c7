//! Tag, length, value: strictly ascending tags, no repeats, unknown tags below 128 refused.

use zeroize::Zeroizing;

use crate::VaultError;

/// Appends fields in ascending order of their tags. What is written may hold keys, so every copy is wiped.
pub(crate) struct Writer(Zeroizing<Vec<u8>>);

impl Default for Writer {
    fn default() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(512)))
    }
}

impl Writer {
    pub(crate) fn field(&mut self, tag: u8, value: &[u8]) -> &mut Self {
        let needed = self.0.len() + 5 + value.len();
        if needed > self.0.capacity() {
            // A vector that grows by itself leaves what it held behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * needed));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.push(tag);
        // Values are bounded by the size of an op, far below 4 GiB.
        self.0
            .extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// Fields by tag, in order.
pub(crate) struct Fields<'a>(Vec<(u8, &'a [u8])>);

impl<'a> Fields<'a> {
    /// Parses `bytes`; `known` are the tags that may appear below 128.
    pub(crate) fn parse(
        mut bytes: &'a [u8],
        known: std::ops::RangeInclusive<u8>,
    ) -> Result<Self, VaultError> {
        let mut fields: Vec<(u8, &[u8])> = Vec::new();
        while let Some((&[tag, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() {
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            let (value, rest) = rest
                .split_at_checked(len)
                .ok_or(VaultError::Op("a field ends too early"))?;
            if fields.last().is_some_and(|(before, _)| *before >= tag) {
                return Err(VaultError::Op("fields out of order or repeated"));
            }
            if tag < 128 && !known.contains(&tag) {
                return Err(VaultError::Op("an unknown field that must be understood"));
            }
            fields.push((tag, value));
            bytes = rest;
        }
        if bytes.is_empty() {
            Ok(Self(fields))
        } else {
            Err(VaultError::Op("a field ends too early"))
        }
    }

    pub(crate) fn get(&self, tag: u8) -> Option<&'a [u8]> {
        self.0
            .iter()
            .find(|(t, _)| *t == tag)
            .map(|(_, value)| *value)
    }

    pub(crate) fn array<const N: usize>(&self, tag: u8) -> Result<[u8; N], VaultError> {
        self.optional_array(tag)?
            .ok_or(VaultError::Op("a field is missing"))
    }

    pub(crate) fn optional_array<const N: usize>(
        &self,
        tag: u8,
    ) -> Result<Option<[u8; N]>, VaultError> {
        self.get(tag)
            .map(|value| {
                value
                    .try_into()
                    .map_err(|_| VaultError::Op("a field has the wrong length"))
            })
            .transpose()
    }

    pub(crate) fn u8(&self, tag: u8) -> Result<u8, VaultError> {
        Ok(self.array::<1>(tag)?[0])
    }

    pub(crate) fn text(&self, tag: u8) -> Result<&'a str, VaultError> {
        let value = self.get(tag).ok_or(VaultError::Op("a field is missing"))?;
        std::str::from_utf8(value).map_err(|_| VaultError::Op("a text is not UTF-8"))
    }

    /// Refuses fields that do not belong to this kind of thing.
    pub(crate) fn none_of(&self, tags: &[u8]) -> Result<(), VaultError> {
        match self.0.iter().any(|(tag, _)| tags.contains(tag)) {
            true => Err(VaultError::Op("a field that does not belong here")),
            false => Ok(()),
        }
    }
}
