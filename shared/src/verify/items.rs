//! A callback that holds several events: each is a slice of the verified body, byte for byte.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Refusal;

/// The most events taken out of one callback.
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
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        let mut fields: HashMap<String, &RawValue> = serde_json::from_str(at).ok()?;
        at = fields.remove(&step)?.get();
    }
    serde_json::from_str(at).ok()
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
