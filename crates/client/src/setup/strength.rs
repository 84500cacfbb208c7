//! How hard a password is to guess, roughly and on the careful side.
//!
//! Asked only before a password slot goes to the server, where it can be guessed at offline. English text
//! carries about two bits a letter once a word has begun, so a letter after a letter counts little, and what
//! repeats or counts up counts next to nothing.

/// What a password slot on a server needs.
pub const CLOUD_BITS: f64 = 60.0;

/// An estimate in bits.
pub fn estimate(password: &str) -> f64 {
    let mut bits = 0.0;
    let mut before: Option<char> = None;
    for c in password.chars() {
        bits += match before {
            Some(last) if u32::from(c).abs_diff(u32::from(last)) <= 1 => 0.5,
            Some(last)
                if last.is_alphabetic()
                    && c.is_alphabetic()
                    && last.is_lowercase() == c.is_lowercase() =>
            {
                2.3
            }
            _ if c.is_ascii_digit() => 3.3,
            _ if c.is_ascii_alphabetic() => 4.7,
            _ if c == ' ' => 1.0,
            _ => 5.0,
        };
        before = Some(c);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_go_to_a_server() {
        for (text, enough) in [
            ("correct horse battery staple", true),
            ("kT9-vv2x!Q7pLm4", true),
            ("abandon-zoo-ladder-cruise-melody", true),
            ("password1234", false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("abcdefghijklmnopqrstuvwxyz0123456789", false),
            ("mein passwort", false),
        ] {
            assert_eq!(
                estimate(text) >= CLOUD_BITS,
                enough,
                "{text}: {}",
                estimate(text)
            );
        }
    }
}
