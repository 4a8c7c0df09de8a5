//! A record's key: the bytes that its partition hangs on, and nothing else.
//!
//! Canonical bytes are `namespace ‖ 0 ‖ kind as one byte ‖ 0 ‖ name`. A namespace can't contain a
//! zero byte (see `validate`), so two keys never share canonical bytes.

use prost::encoding::{encode_varint, encoded_len_varint};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::proto::api::{self, Kind};

/// Room for the canonical bytes of every valid key: 253 + 1 + 1 + 1 + 253.
const CANONICAL_BYTES_MAX: usize = 512;

/// A key that borrows its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyRef<'a> {
    /// The namespace, with its default already filled in.
    pub namespace: &'a str,
    /// Gateway or agent.
    pub kind: Kind,
    /// The name, with its default already filled in.
    pub name: &'a str,
}

impl<'a> KeyRef<'a> {
    /// The key of a message whose defaults are filled in.
    pub fn of(key: &'a api::Key) -> KeyRef<'a> {
        KeyRef { namespace: &key.namespace, kind: key.kind(), name: &key.name }
    }

    /// xxh3-64 (seed 0) of the canonical bytes; allocates nothing.
    pub fn hash(&self) -> u64 {
        let kind = self.kind as i32 as u8;
        let (namespace, name) = (self.namespace.as_bytes(), self.name.as_bytes());
        let length = namespace.len() + name.len() + 3;
        if length > CANONICAL_BYTES_MAX {
            let mut state = Xxh3::new();
            state.update(namespace);
            state.update(&[0, kind, 0]);
            state.update(name);
            return state.digest();
        }
        let mut canonical = [0u8; CANONICAL_BYTES_MAX];
        canonical[..namespace.len()].copy_from_slice(namespace);
        canonical[namespace.len() + 1] = kind;
        canonical[namespace.len() + 3..length].copy_from_slice(name);
        xxh3_64(&canonical[..length])
    }

    /// The key as a message.
    pub fn to_message(&self) -> api::Key {
        api::Key {
            namespace: self.namespace.to_owned(),
            kind: self.kind as i32,
            name: self.name.to_owned(),
        }
    }

    /// The length of [`KeyRef::encode`]'s output.
    pub(crate) fn encoded_len(&self) -> usize {
        let text = |text: &str| match text.len() {
            0 => 0,
            length => 1 + encoded_len_varint(length as u64) + length,
        };
        let kind = if self.kind == Kind::Unspecified { 0 } else { 2 };
        text(self.namespace) + kind + text(self.name)
    }

    /// Appends the encoded `api::Key`, byte for byte as prost would.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, tag: u8, text: &str| {
            if !text.is_empty() {
                out.push(tag);
                encode_varint(text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
        };
        text(out, 0x0a, self.namespace);
        if self.kind != Kind::Unspecified {
            out.push(0x10);
            out.push(self.kind as i32 as u8);
        }
        text(out, 0x1a, self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Gateway), Just(Kind::Agent)]
    }

    proptest! {
        #[test]
        fn hash_is_that_of_the_canonical_bytes(
            ns in ".{0,300}", kind in kind(), name in ".{0,300}",
        ) {
            let mut canonical = ns.clone().into_bytes();
            canonical.extend([0, kind as i32 as u8, 0]);
            canonical.extend(name.as_bytes());
            let key = KeyRef { namespace: &ns, kind, name: &name };
            prop_assert_eq!(key.hash(), xxh3_64(&canonical));
        }

        #[test]
        fn encoding_equals_prost(ns in ".{0,200}", kind in kind(), name in ".{0,200}") {
            let key = KeyRef { namespace: &ns, kind, name: &name };
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), key.encoded_len());
            prop_assert_eq!(bytes, key.to_message().encode_to_vec());
        }
    }
}
