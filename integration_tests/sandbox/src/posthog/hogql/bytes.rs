//! Texts as ClickHouse has them, which are bytes.

use super::value::Value;

/// The bytes of a text.
pub(super) fn of(value: Value<'_>) -> Option<Vec<u8>> {
    match value {
        Value::Text(text) => Some(text.into_owned().into_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// The last bytes of a text; all of it if it is shorter.
pub(super) fn right<'a>(mut text: Vec<u8>, count: usize) -> Value<'a> {
    text.drain(..text.len().saturating_sub(count));
    Value::Bytes(text)
}

pub(super) fn reversed<'a>(mut text: Vec<u8>) -> Value<'a> {
    text.reverse();
    Value::Bytes(text)
}

/// The bytes that hex digits of either case stand for. A digit without another one is a byte of its own.
pub(super) fn unhex<'a>(text: &[u8]) -> Value<'a> {
    let (first, pairs) = text.split_at(text.len() % 2);
    let pairs = pairs.as_chunks::<2>().0.iter();
    let both = pairs.map(|[high, low]| digit(*high).wrapping_mul(16).wrapping_add(digit(*low)));
    Value::Bytes(first.iter().map(|single| digit(*single)).chain(both).collect())
}

/// What ClickHouse's table has for anything else is 255.
fn digit(letter: u8) -> u8 {
    match letter {
        b'0'..=b'9' => letter - b'0',
        b'a'..=b'f' => letter - b'a' + 10,
        b'A'..=b'F' => letter - b'A' + 10,
        _ => 0xff,
    }
}

/// The first four bytes as a number, the lowest one first; bytes that are missing are zero.
pub(super) fn number<'a>(text: &[u8]) -> Value<'a> {
    Value::Integer(text.iter().take(4).rev().fold(0, |number, byte| number * 256 + i128::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_turned_and_read_byte_by_byte() {
        assert_eq!(right(b"abc".to_vec(), 2), Value::Bytes(b"bc".to_vec()));
        assert_eq!(right(b"abc".to_vec(), 4), Value::Bytes(b"abc".to_vec()));
        assert_eq!(reversed("é".into()), Value::Bytes(vec![0xa9, 0xc3]));
        assert_eq!(unhex(b"00fFa"), Value::Bytes(vec![0, 0x0f, 0xfa]));
        assert_eq!(unhex(b""), Value::Bytes(Vec::new()));
        assert_eq!(number(&[0x78, 0x56, 0x34, 0x92, 0xff]), Value::Integer(0x9234_5678));
        assert_eq!(number(&[1, 2]), Value::Integer(0x201));
    }
}
