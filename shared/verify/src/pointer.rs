//! Values in a JSON body by JSON pointer (RFC 6901), without building a tree: memory doesn't grow
//! with the body.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A string, number or boolean, as text; a number with its digits as they are written. `None` where there is none, or the body isn't JSON. Of
/// two fields with one name the last counts, as everywhere in Zentra.
pub(super) fn text_at(body: &[u8], pointer: &str) -> Option<String> {
    texts_at(body, &[pointer]).pop()?
}

/// The strings, numbers and booleans at several places of a JSON body, found in one pass. A number has
/// the digits that are written. `None` for a place without one, and for all if the body isn't JSON.
pub fn texts_at(body: &[u8], pointers: &[&str]) -> Vec<Option<String>> {
    let ways: Vec<_> = pointers.iter().map(|pointer| way(pointer)).collect();
    let wanted = ways.iter().enumerate().filter_map(|(at, way)| Some((at, way.as_deref()?)));
    let wanted: Vec<_> = wanted.collect();
    let mut found = vec![None; pointers.len()];
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Here { wanted: &wanted, found: &mut found }.deserialize(&mut json);
    if read.and_then(|()| json.end()).is_err() {
        found.fill(None);
    }
    found
}

fn way(pointer: &str) -> Option<Vec<Cow<'_, str>>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    pointer.starts_with('/').then(|| pointer_steps(pointer).collect())
}

/// The unescaped reference tokens of a JSON pointer, without the text before its first `/`
/// (RFC 6901, section 4). An empty pointer has none.
pub fn pointer_steps(pointer: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pointer.split('/').skip(1).map(|step| match step.contains('~') {
        true => Cow::Owned(step.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(step),
    })
}

/// Index of the place, and the rest of its pointer.
type Sought<'p> = (usize, &'p [Cow<'p, str>]);

/// The ways that lead through here, and what has been found.
struct Here<'a, 'p> {
    wanted: &'a [Sought<'p>],
    found: &'a mut [Option<String>],
}

impl<'p> Here<'_, 'p> {
    /// What is here counts only at the end of a way.
    fn is(&mut self, json: &str) -> serde_json::Result<()> {
        let text = text(json)?;
        for (at, _) in self.wanted.iter().filter(|(_, rest)| rest.is_empty()) {
            self.found[*at].clone_from(&text);
        }
        Ok(())
    }

    /// One step on: of what has this name, the last counts, whatever it is.
    fn inside<'a>(&'a mut self, wanted: &'a [Sought<'p>]) -> Here<'a, 'p> {
        wanted.iter().for_each(|(at, _)| self.found[*at] = None);
        Here { wanted, found: self.found }
    }
}

/// A string without its quotes, and a number or boolean as it is written.
fn text(json: &str) -> serde_json::Result<Option<String>> {
    Ok(match json.as_bytes().first() {
        Some(b'"') => Some(serde_json::from_str(json)?),
        Some(b'{' | b'[' | b'n') | None => None,
        Some(_) => Some(json.to_owned()),
    })
}

/// Those of the ways whose next step is this one.
fn through<'p>(wanted: &[Sought<'p>], is: impl Fn(&str) -> bool) -> Vec<Sought<'p>> {
    let on = wanted.iter().filter_map(|(at, way)| match way {
        [step, rest @ ..] => is(step).then_some((*at, rest)),
        [] => None,
    });
    on.collect()
}

/// Without leading zeros, as RFC 6901 has it.
fn is_index(step: &str, index: usize) -> bool {
    step.parse() == Ok(index) && (step == "0" || !step.starts_with(['0', '+']))
}

impl<'de> DeserializeSeed<'de> for Here<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, json: D) -> Result<(), D::Error> {
        if self.wanted.iter().all(|(_, rest)| !rest.is_empty()) {
            return json.deserialize_any(self);
        }
        // A number keeps its digits, so it is taken as it is written.
        let raw = <&RawValue>::deserialize(json)?.get();
        self.is(raw).map_err(de::Error::custom)?;
        let further = self.wanted.iter().filter(|(_, rest)| !rest.is_empty());
        let further: Vec<_> = further.copied().collect();
        match further.is_empty() {
            true => Ok(()),
            false => {
                let mut json = serde_json::Deserializer::from_str(raw);
                let inside = Here { wanted: &further, found: self.found };
                inside.deserialize(&mut json).map_err(de::Error::custom)
            }
        }
    }
}

impl<'de> Visitor<'de> for Here<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(on) = map.next_key_seed(Named(self.wanted))? {
            match on.is_empty() {
                true => drop(map.next_value::<IgnoredAny>()?),
                false => map.next_value_seed(self.inside(&on))?,
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut items: S) -> Result<(), S::Error> {
        for index in 0_usize.. {
            let on = through(self.wanted, |step| is_index(step, index));
            let more = match on.is_empty() {
                true => items.next_element::<IgnoredAny>()?.is_some(),
                false => items.next_element_seed(self.inside(&on))?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// The ways that go through the field of this name.
struct Named<'a, 'p>(&'a [Sought<'p>]);

impl<'de, 'p> DeserializeSeed<'de> for Named<'_, 'p> {
    type Value = Vec<Sought<'p>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'p> Visitor<'_> for Named<'_, 'p> {
    type Value = Vec<Sought<'p>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(through(self.0, |step| step == name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The same, by the tree; a number's digits by the text of it.
    fn by_tree(body: &[u8], pointer: &str) -> Option<String> {
        let tree = serde_json::from_slice::<Value>(body).ok()?;
        match tree.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) => {
                let mut at: &RawValue = serde_json::from_slice(body).ok()?;
                for step in pointer_steps(pointer) {
                    let fields = serde_json::from_str::<HashMap<String, &RawValue>>(at.get());
                    at = match fields {
                        Ok(mut fields) => fields.remove(&*step)?,
                        Err(_) => {
                            let items: Vec<&RawValue> = serde_json::from_str(at.get()).ok()?;
                            items.into_iter().nth(step.parse().ok()?)?
                        }
                    };
                }
                Some(at.get().to_owned())
            }
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    #[test]
    fn a_number_keeps_its_digits_as_they_are_written() {
        let numbers = ["100000000000000000000001", "18446744073709551616", "1e+23", "1.50", "-0"];
        for number in numbers {
            let body = format!("{{\"id\": {number} }}");
            assert_eq!(text_at(body.as_bytes(), "/id").as_deref(), Some(number));
            assert_eq!(texts_at(body.as_bytes(), &["/id", "/id/x"])[0].as_deref(), Some(number));
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
            let all = texts_at(body.as_bytes(), &pointers);
            for (pointer, one_of_all) in pointers.into_iter().zip(all) {
                let found = text_at(body.as_bytes(), pointer);
                assert_eq!(found, by_tree(body.as_bytes(), pointer), "{pointer} of {body}");
                assert_eq!(found, one_of_all, "{pointer} of {body}, with the others");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_through_as_by_the_tree(
            body in "(\\{|\\}|\\[|\\]|\"[ab]\"|:|,|1|null|true| |-1.5e3){0,24}",
            pointers in prop::array::uniform3("(/[ab01])?(/[ab01])?"),
        ) {
            let pointers = pointers.each_ref().map(String::as_str);
            let by_tree = pointers.map(|pointer| by_tree(body.as_bytes(), pointer));
            prop_assert_eq!(texts_at(body.as_bytes(), &pointers), by_tree);
        }
    }
}
