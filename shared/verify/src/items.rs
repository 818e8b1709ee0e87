//! Callbacks with several events: each event is a slice of the verified body.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Refusal;
use super::pointer::pointer_steps;

/// Maximum number of events in one callback.
pub const MAX_ITEMS: usize = 5000;

/// The items of the array at a JSON pointer (RFC 6901). `None` where there is no array: then the
/// body is one event, as with any other provider.
pub(super) fn items(body: &Bytes, pointer: &str) -> Result<Option<Vec<Bytes>>, Refusal> {
    let Some(array) = array(body, pointer) else { return Ok(None) };
    if array.len() > MAX_ITEMS {
        return Err(Refusal::BatchTooLarge);
    }
    Ok(Some(array.into_iter().map(|item| body.slice_ref(item.get().as_bytes())).collect()))
}

fn array<'a>(body: &'a Bytes, pointer: &str) -> Option<Vec<&'a RawValue>> {
    let mut at = std::str::from_utf8(body).ok()?;
    for step in pointer_steps(pointer) {
        let mut json = serde_json::Deserializer::from_str(at);
        at = Field(&step).deserialize(&mut json).ok()??.get();
        json.end().ok()?;
    }
    let mut json = serde_json::Deserializer::from_str(at);
    let items = Items.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(items)
}

/// The value of the field with this name; of two, the last.
struct Field<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(named) = fields.next_key_seed(Is(self.0))? {
            match named {
                true => found = Some(fields.next_value()?),
                false => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Whether a field has this name.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// Items of an array, up to one more than the maximum.
struct Items;

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Self::Value, S::Error> {
        let mut found = Vec::new();
        while found.len() <= MAX_ITEMS {
            match items.next_element()? {
                Some(item) => found.push(item),
                None => return Ok(found),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(body: &str, pointer: &str) -> Option<Vec<Bytes>> {
        items(&Bytes::copy_from_slice(body.as_bytes()), pointer).unwrap()
    }

    #[test]
    fn items_are_what_stands_in_the_body_byte_for_byte() {
        let body = "{ \"a/b\": {\"e\" : [ {\"n\": 1.0 } ,2,\"\\u0041\", [ ] ]}, \"x\":1 }\r\n";
        let found = of(body, "/a~1b/e").unwrap();
        assert_eq!(found, ["{\"n\": 1.0 }", "2", "\"\\u0041\"", "[ ]"]);
        assert_eq!(of(" [1] ", "").unwrap(), ["1"]);
        assert_eq!(of("[]", "").unwrap(), [""; 0]);
        for none in ["{}", "{\"a\":{}}", "{\"a\":1}", "not json", "", "[[1]", "\u{feff}[]"] {
            assert_eq!(of(none, "/a"), None, "{none}");
        }
    }

    #[test]
    fn more_items_than_the_bound_are_refused() {
        let of = |count: usize| {
            let body = format!("[{}]", vec!["1"; count].join(","));
            items(&body.into(), "").map(|items| items.unwrap().len())
        };
        assert_eq!(of(MAX_ITEMS), Ok(MAX_ITEMS));
        assert_eq!(of(MAX_ITEMS + 1), Err(Refusal::BatchTooLarge));
    }

    proptest! {
        #[test]
        fn no_body_and_no_pointer_panics(body in "\\PC{0,80}", pointer in "[/a~01]{0,6}") {
            let _ = items(&body.into(), &pointer);
        }
    }
}
