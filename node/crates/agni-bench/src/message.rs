//! Reads the few fields of a watch's messages that a load test looks at, without building them.

/// One field of a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A varint, or a fixed number.
    Number(u64),
    /// Bytes, text or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; ends early where the bytes are no message.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (index, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (index * 7);
            if *byte < 0x80 {
                self.0 = &self.0[index + 1..];
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?)),
            2 => {
                let count = self.varint()? as usize;
                Value::Bytes(self.bytes(count)?)
            }
            5 => Value::Number(u64::from(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

/// A nested message's field of bytes, by the path of field numbers; empty where it is absent.
#[must_use]
pub fn nested<'a>(message: &'a [u8], path: &[u64]) -> &'a [u8] {
    let mut at = message;
    for field in path {
        let found = Fields(at).find_map(|(number, value)| match value {
            Value::Bytes(bytes) if number == *field => Some(bytes),
            _ => None,
        });
        match found {
            Some(bytes) => at = bytes,
            None => return &[],
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_bytes_are_found_and_nonsense_ends() {
        // {1: 150, 2: {5: "ab"}}
        let message = [0x08, 0x96, 0x01, 0x12, 0x04, 0x2a, 0x02, b'a', b'b'];
        assert_eq!(Fields(&message).next(), Some((1, Value::Number(150))));
        assert_eq!(nested(&message, &[2, 5]), b"ab");
        assert_eq!(nested(&message, &[3]), b"");
        for cut in 0..message.len() {
            assert!(Fields(&message[..cut]).count() <= 2);
        }
        assert_eq!(Fields(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).count(), 0);
    }
}
