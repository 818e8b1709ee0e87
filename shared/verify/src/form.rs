//! Parameters of an `application/x-www-form-urlencoded` form or query, as slices. So memory doesn't
//! grow with the body; `form_urlencoded` would copy.

use std::borrow::Cow;
use std::iter;

use memchr::{memchr, memchr2};
use percent_encoding::percent_decode;

/// Maximum number of parameters in a form or query.
const MAX_PARAMETERS: usize = 1000;
/// Maximum total length of their names, which are compared with each other.
const MAX_NAMES: usize = 64 * 1024;

/// Name and value.
pub(super) type Parameter<'a> = (Encoded<'a>, Encoded<'a>);

/// The parameters in their order
/// (<https://url.spec.whatwg.org/#application/x-www-form-urlencoded>). None where there are more than
/// [`MAX_PARAMETERS`], or their names have more than [`MAX_NAMES`].
pub(super) fn parameters(text: &[u8]) -> Option<Vec<Parameter<'_>>> {
    let mut read = Vec::with_capacity(16);
    let (mut rest, mut names) = (text, 0);
    while !rest.is_empty() {
        let pair;
        (pair, rest) = split(rest, b'&');
        if pair.is_empty() {
            continue;
        }
        if read.len() == MAX_PARAMETERS {
            return None;
        }
        let (name, value) = split(pair, b'=');
        names += name.len();
        if names > MAX_NAMES {
            return None;
        }
        read.push((Encoded::new(name), Encoded::new(value)));
    }
    Some(read)
}

/// The parameters in the order of their names; those of one name in their own order.
pub(super) fn by_name<'a>(parameters: &[Parameter<'a>]) -> Vec<Parameter<'a>> {
    let mut named = named(parameters);
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named.into_iter().map(|(_, parameter)| parameter).collect()
}

/// The parameters in the order of their names, and of their values under one name. `unique`: of
/// those alike in both there is one.
pub(super) fn by_name_and_value<'a>(
    parameters: &[Parameter<'a>],
    unique: bool,
) -> Vec<Parameter<'a>> {
    let mut named = named(parameters);
    named.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut ordered = Vec::with_capacity(named.len());
    for same in named.chunk_by(|a, b| a.0 == b.0) {
        if let [(_, one)] = same {
            ordered.push(*one);
            continue;
        }
        let decoded = same.iter().map(|(_, parameter)| (parameter.1.decoded(), *parameter));
        let mut decoded: Vec<_> = decoded.collect();
        decoded.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if unique {
            decoded.dedup_by(|a, b| a.0 == b.0);
        }
        ordered.extend(decoded.into_iter().map(|(_, parameter)| parameter));
    }
    ordered
}

/// Each name is decoded once; decoding at each comparison would cost as much as many HMACs.
fn named<'a>(parameters: &[Parameter<'a>]) -> Vec<(Cow<'a, [u8]>, Parameter<'a>)> {
    parameters.iter().map(|parameter| (parameter.0.decoded(), *parameter)).collect()
}

fn split(text: &[u8], by: u8) -> (&[u8], &[u8]) {
    memchr(by, text).map_or((text, &[]), |at| (&text[..at], &text[at + 1..]))
}

/// An encoded name or value. Comparison uses the decoded text.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'a> {
    raw: &'a [u8],
    /// Whether it is the same encoded and decoded.
    plain: bool,
}

impl<'a> Encoded<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Self { raw, plain: memchr2(b'%', b'+', raw).is_none() }
    }

    /// Decoded bytes.
    fn bytes(self) -> impl Iterator<Item = u8> {
        let mut words = self.raw.split(|&byte| byte == b'+');
        let first = percent_decode(words.next().unwrap_or_default());
        first.chain(words.flat_map(|word| iter::once(b' ').chain(percent_decode(word))))
    }

    fn decoded(self) -> Cow<'a, [u8]> {
        match self.plain {
            true => Cow::Borrowed(self.raw),
            false => Cow::Owned(self.bytes().collect()),
        }
    }

    /// Number of decoded bytes.
    pub(super) fn len(self) -> usize {
        if self.plain { self.raw.len() } else { self.bytes().count() }
    }

    /// Passes the decoded bytes on, piece by piece.
    pub(super) fn each(self, to: &mut impl FnMut(&[u8])) {
        if self.plain {
            return to(self.raw);
        }
        let (mut bytes, mut piece) = (self.bytes(), [0; 64]);
        loop {
            let taken = piece.iter_mut().zip(&mut bytes).map(|(at, byte)| *at = byte).count();
            match taken {
                0 => return,
                taken => to(&piece[..taken]),
            }
        }
    }

    /// The decoded text, if it is UTF-8.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self.plain {
            true => std::str::from_utf8(self.raw).ok().map(Cow::Borrowed),
            false => String::from_utf8(self.bytes().collect()).ok().map(Cow::Owned),
        }
    }

    /// Whether it decodes to this text.
    pub(super) fn is(self, text: &str) -> bool {
        self == Encoded { raw: text.as_bytes(), plain: true }
    }
}

impl PartialEq for Encoded<'_> {
    fn eq(&self, other: &Self) -> bool {
        match self.plain && other.plain {
            true => self.raw == other.raw,
            false => self.bytes().eq(other.bytes()),
        }
    }
}

impl Eq for Encoded<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// But for what is no text, where the library has U+FFFD.
        #[test]
        fn a_form_is_read_as_the_library_reads_it(
            text in prop::string::bytes_regex(
                r"(?-u)([&=]|([a+%]|%EF%BF%BD|%C3%A4|%26|%C3|%A4|\xC3|\xA4|\xEF\xBF\xBD){0,90}){0,10}",
            ).unwrap(),
        ) {
            let by_library: Vec<_> = form_urlencoded::parse(&text).collect();
            let read = parameters(&text).unwrap();
            prop_assert_eq!(read.len(), by_library.len());
            for ((name, value), by_library) in read.iter().zip(by_library) {
                for (one, by_library) in [(name, by_library.0), (value, by_library.1)] {
                    let mut handed = Vec::new();
                    one.each(&mut |bytes| handed.extend_from_slice(bytes));
                    prop_assert_eq!(String::from_utf8_lossy(&handed), &*by_library);
                    prop_assert_eq!(one.len(), handed.len());
                    let is_text = std::str::from_utf8(&handed).is_ok();
                    prop_assert_eq!(one.text(), is_text.then_some(by_library));
                    prop_assert_eq!(one.text().is_some_and(|text| one.is(&text)), is_text);
                }
            }
        }

        #[test]
        fn what_is_encoded_has_the_order_of_what_it_stands_for(
            pairs in prop::collection::vec(
                ("([a-c+]|%6[123]|%20|%C3%A4){0,2}", "([a-c+]|%6[123]|%20|%C3%A4){0,2}"),
                0..8,
            ),
        ) {
            let text: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let text = text.join("&");
            let read = parameters(text.as_bytes()).unwrap();
            let texts = |all: &[Parameter<'_>]| -> Vec<(String, String)> {
                let text = |one: Encoded<'_>| one.text().unwrap().into_owned();
                all.iter().map(|(name, value)| (text(*name), text(*value))).collect()
            };
            let mut by_library: Vec<_> =
                form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            by_library.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            prop_assert_eq!(texts(&by_name(&read)), by_library.clone());
            by_library.sort();
            prop_assert_eq!(texts(&by_name_and_value(&read, false)), by_library.clone());
            by_library.dedup();
            prop_assert_eq!(texts(&by_name_and_value(&read, true)), by_library);
            for (a, b) in read.iter().zip(read.iter().rev()) {
                prop_assert_eq!(a.1 == b.1, a.1.text() == b.1.text());
            }
        }

        #[test]
        fn more_parameters_than_the_bound_are_none(more in 0..3_usize) {
            let text = "a=b&".repeat(MAX_PARAMETERS - 1 + more);
            prop_assert_eq!(parameters(text.as_bytes()).is_some(), more <= 1);
            let text = format!("a=b&{}=c&d=e", "n".repeat(MAX_NAMES - 3 + more));
            prop_assert_eq!(parameters(text.as_bytes()).is_some(), more <= 1);
        }
    }
}
