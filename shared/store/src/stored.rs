//! Stored documents: JSON objects with the version of their form in the field `v`.
//!
//! Documents of 0.2.0 and older have no `v`: their version is 1. A program reads all versions up to its own. It
//! reports a document of a newer one as such, and never as damaged: after an upgrade it is readable again.
//!
//! A form gets a new version if a program that does not know the change would act wrongly. A field that such a
//! program may ignore gets none. Each document has the lowest version that can hold it, so that older programs
//! beside a newer one go on reading what they understand.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::journal::JournalError;

/// A value that is stored as a document.
pub trait Document: Serialize + DeserializeOwned {
    /// What it is, for error messages, such as `job`.
    const KIND: &'static str;

    /// The newest version that this program reads.
    const NEWEST: u16 = 1;

    /// The lowest version that can hold this value.
    fn version(&self) -> u16 {
        1
    }
}

#[derive(Serialize)]
struct Versioned<'a, D> {
    v: u16,
    #[serde(flatten)]
    document: &'a D,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default = "first")]
    v: u16,
}

fn first() -> u16 {
    1
}

/// The bytes of a document.
///
/// # Errors
/// [`JournalError::Unreadable`] if it is not a JSON object.
pub fn write<D: Document>(document: &D) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(&Versioned { v: document.version(), document })
        .map_err(|error| JournalError::Unreadable(format!("a new {}: {error}", D::KIND)))
}

/// The document that is stored under this name.
///
/// # Errors
/// [`JournalError::Newer`] if a newer version of Zentra wrote it; [`JournalError::Unreadable`].
pub fn read<D: Document>(name: &str, bytes: &[u8]) -> Result<D, JournalError> {
    let damaged = |error| JournalError::Unreadable(format!("{} {name}: {error}", D::KIND));
    let Version { v } = serde_json::from_slice(bytes).map_err(damaged)?;
    if v > D::NEWEST {
        return Err(JournalError::Newer {
            what: format!("{} {name}", D::KIND),
            version: v,
            newest: D::NEWEST,
        });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Stored documents, as far as this version can read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<D> {
    /// The readable ones.
    pub items: Vec<D>,
    /// Names of those that a newer version of Zentra wrote.
    pub newer: Vec<String>,
}

impl<D> Default for Listing<D> {
    fn default() -> Self {
        Self { items: Vec::new(), newer: Vec::new() }
    }
}

impl<D: Document> Listing<D> {
    /// Reads documents, each with its name.
    ///
    /// # Errors
    /// [`JournalError::Unreadable`].
    pub fn read<'a>(
        documents: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, JournalError> {
        let mut listing = Self::default();
        for (name, bytes) in documents {
            match read(name, bytes) {
                Ok(document) => listing.items.push(document),
                Err(JournalError::Newer { .. }) => listing.newer.push(name.to_owned()),
                Err(error) => return Err(error),
            }
        }
        Ok(listing)
    }

    /// All documents.
    ///
    /// # Errors
    /// [`JournalError::Newer`] if a newer version of Zentra wrote one of them.
    pub fn all(self) -> Result<Vec<D>, JournalError> {
        match self.newer.first() {
            None => Ok(self.items),
            Some(name) => Err(JournalError::Newer {
                what: format!("{} {name}", D::KIND),
                version: D::NEWEST.saturating_add(1),
                newest: D::NEWEST,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<String>,
    }

    impl Document for Note {
        const KIND: &'static str = "note";
        const NEWEST: u16 = 2;

        fn version(&self) -> u16 {
            if self.tags.is_empty() { 1 } else { 2 }
        }
    }

    fn note(tags: &[&str]) -> Note {
        Note { text: "a".into(), tags: tags.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn a_document_has_the_lowest_version_that_holds_it_and_older_ones_are_read() {
        assert_eq!(write(&note(&[])).unwrap(), br#"{"v":1,"text":"a"}"#);
        assert_eq!(write(&note(&["b"])).unwrap(), br#"{"v":2,"text":"a","tags":["b"]}"#);
        for (bytes, tags) in
            [(r#"{"text":"a"}"#, &[][..]), (r#"{"v":2,"text":"a","tags":["b"]}"#, &["b"])]
        {
            assert_eq!(read::<Note>("n", bytes.as_bytes()).unwrap(), note(tags));
        }
    }

    #[test]
    fn a_newer_document_is_told_from_a_damaged_one() {
        let newer = read::<Note>("n", br#"{"v":3,"other":1}"#).unwrap_err();
        assert!(matches!(newer, JournalError::Newer { version: 3, newest: 2, .. }), "{newer}");
        for damaged in [&b"{\"v\":1}"[..], b"{", b"", b"[]"] {
            let error = read::<Note>("n", damaged).unwrap_err();
            assert!(matches!(error, JournalError::Unreadable(_)), "{error}");
        }
        let documents = [("a", &br#"{"text":"a"}"#[..]), ("b", br#"{"v":3}"#)];
        let listing = Listing::<Note>::read(documents).unwrap();
        assert_eq!((listing.items.len(), &*listing.newer), (1, &["b".to_owned()][..]));
        assert!(matches!(listing.all().unwrap_err(), JournalError::Newer { .. }));
    }
}
