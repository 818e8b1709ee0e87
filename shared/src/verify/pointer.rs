//! What is at a place in a JSON body, by JSON pointer (RFC 6901): without building the body's
//! tree, so that no memory is taken in proportion to it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// A string, number or boolean, as text. `None` where there is none, or the body isn't JSON. Of
/// two fields with one name the last counts, as everywhere in Zentra.
pub(super) fn text_at(body: &[u8], pointer: &str) -> Option<String> {
    let path = path(pointer)?;
    let mut json = serde_json::Deserializer::from_slice(body);
    let found = At(&path).deserialize(&mut json).ok()?;
    json.end().ok()?;
    found
}

fn path(pointer: &str) -> Option<Vec<Cow<'_, str>>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let steps = pointer.strip_prefix('/')?.split('/');
    let unescaped = steps.map(|step| match step.contains('~') {
        true => Cow::Owned(step.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(step),
    });
    Some(unescaped.collect())
}

/// The rest of the way.
struct At<'p>(&'p [Cow<'p, str>]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl At<'_> {
    /// What is here counts only at the end of the way.
    fn here(&self, text: impl FnOnce() -> String) -> Option<String> {
        self.0.is_empty().then(text)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.here(|| text.to_owned()))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(self.here(|| truth.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.here(|| number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.here(|| number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(number).and_then(|number| self.here(|| number.to_string())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(fits) = map.next_key_seed(Is(self.0.first()))? {
            match (fits, self.0) {
                (true, [_, rest @ ..]) => found = map.next_value_seed(At(rest))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Self::Value, S::Error> {
        let [step, rest @ ..] = self.0 else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        // Without leading zeros, as RFC 6901 has it.
        let wanted = step.parse::<usize>().ok().filter(|index| index.to_string() == **step);
        let mut found = None;
        for index in 0.. {
            if Some(index) == wanted {
                match items.next_element_seed(At(rest))? {
                    Some(text) => found = text,
                    None => break,
                }
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

/// Whether a field's name is this one.
struct Is<'p>(Option<&'p Cow<'p, str>>);

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
        Ok(self.0.is_some_and(|wanted| **wanted == *name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The same, by the tree.
    fn by_tree(body: &[u8], pointer: &str) -> Option<String> {
        match serde_json::from_slice::<Value>(body).ok()?.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    #[test]
    fn what_is_found_is_what_the_tree_has() {
        let bodies = [
            r#"{"id":"a","n":1.50,"b":true,"x":null,"o":{"id":"b"},"l":[1,{"id":"c"}],"a/b":"d","m~n":"e"}"#,
            r#"{"id":"first","id":"last","o":{"id":1},"o":7}"#,
            r#"{"id":18446744073709551615,"n":-3,"l":[]}"#,
            r#"{"id":123456789012345678901234567890}"#,
            "\"id\"",
            "[[\"x\"],2]",
            r#"{"id":"a"} trailing"#,
            r#"{"id":"a","broken":"#,
            r#"{"id":"\ud83d\ude00\n"}"#,
            "",
        ];
        let pointers = [
            "",
            "/",
            "/id",
            "/n",
            "/b",
            "/x",
            "/o",
            "/o/id",
            "/o/id/no",
            "/l",
            "/l/0",
            "/l/1/id",
            "/l/00",
            "/l/-",
            "/l/9",
            "/a~1b",
            "/m~0n",
            "/0/0",
            "/1",
            "id",
            "/l/+1",
            "/l/99999999999999999999",
        ];
        for body in bodies {
            for pointer in pointers {
                let found = text_at(body.as_bytes(), pointer);
                assert_eq!(found, by_tree(body.as_bytes(), pointer), "{pointer} of {body}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_through_as_by_the_tree(
            body in "(\\{|\\}|\\[|\\]|\"[ab]\"|:|,|1|null|true| |-1.5e3){0,24}",
            pointer in "(/[ab01])?(/[ab01])?",
        ) {
            prop_assert_eq!(text_at(body.as_bytes(), &pointer), by_tree(body.as_bytes(), &pointer));
        }
    }
}
