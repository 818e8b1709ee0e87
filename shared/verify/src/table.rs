//! The catalogue as a Markdown table.

use std::fmt::Write;
use std::time::Duration;

use super::documented::Documented;
use super::key::Algorithm;
use super::place::Location;
use super::scheme::{IdNames, Scheme};
use super::template::Part;
use crate::event::Weakness;

impl Algorithm {
    /// Its name, as an entry of the catalogue writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::RsaSha256 => "rsa-sha256",
            Self::RsaPssSha256 => "rsa-pss-sha256",
            Self::Es256 => "es256",
            Self::Es512 => "es512",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Token => "token",
        }
    }
}

/// All of them, in Markdown.
pub fn table() -> String {
    let rows: Vec<(&str, Scheme)> =
        Scheme::names().filter_map(|name| Some((name, Scheme::named(name)?))).collect();
    let repeats = rows.iter().filter(|(_, scheme)| scheme.delivers_at_least_once());
    let at_least_once = repeats.map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let proven = rows.iter().filter(|(_, scheme)| scheme.proof.is_some()).count();
    let mut text = format!(
        "# Providers\n\n\
         `zentra source list` prints this page. The catalogue has {} providers; {proven} are held to \
         callbacks that their vendor's own SDK has signed or judged (`tests/vectors`): where it \
         *signs*, it made the callbacks as well; where it *judges*, they were made by the vendor's \
         documents, and a real one may have more than these say.\n\n\
         *Signs* is what a signature covers. Where it covers no time, freshness can't be judged; where \
         it covers no id, a copy is recognised by its bytes. What is older or further ahead than the \
         *window* is refused. Where id and type are *of the item*, one callback may hold several \
         events.\n\n\
         How long a provider waits for its answer, and for how long it sends again, is from its own \
         pages, which the entries name; *unstated* where they don't say, *?* where none was found. \
         A source remembers its events for a day longer than its provider sends again, and for \
         `store.retention` at the least.\n\n\
         *One event* says what makes two callbacks the same event, with the vendor's page about it; not \
         all of these pages have been read whole. *Event id* (or *delivery id*): the id alone. It names \
         an event (or a delivery whose retries share it), and the signature vouches for it. *Same bytes*: what is \
         signed, without the time; beside it stands what differs between any two events: one without it \
         is never taken for a copy. **At least once**: the provider sends the same bytes for different events, so each callback is an event, \
         and a retry of its may be delivered again ({at_least_once}). Where the *type* is \
         **unsigned**, see [identity.md](identity.md).\n\n\
         | provider | signature | signs | window | id | one event | type | waits, sends again for | proven by |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        rows.len()
    );
    for (name, scheme) in rows {
        let signature = &scheme.signature;
        let place = |at: &Option<Location>| match (at, &scheme.items) {
            (None, None) => "none".to_owned(),
            (None, Some(_)) => "none of the item".to_owned(),
            (Some(at), Some(_)) => at.to_string().replace("of the JSON body", "of the item"),
            (Some(at), None) => at.to_string(),
        };
        let signed_at = signature.at.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let signed_at = match scheme.items_signed {
            true => signed_at.replace("of the JSON body", "of each item"),
            false => signed_at,
        };
        let window =
            scheme.timestamp.as_ref().map(|time| humantime::format_duration(time.tolerance));
        let linked = match &scheme.documents {
            Some(url) => format!("[{name}]({url})"),
            None => name.to_owned(),
        };
        let _ = writeln!(
            text,
            "| {linked} | {}, {} | {} | {} | {} | {} | {}{} | {}, {} | {} |",
            signed_at,
            signature.algorithm.name(),
            signed(&scheme),
            window.map_or_else(|| "none".into(), |window| window.to_string()),
            place(&scheme.id),
            one_event(&scheme),
            place(&scheme.kind),
            if scheme.type_unsigned() && !scheme.body_unsigned { ", **unsigned**" } else { "" },
            scheme.timeout,
            retries(scheme.retries),
            proven_by(&scheme),
        );
    }
    text
}

fn proven_by(scheme: &Scheme) -> String {
    match (&scheme.proof, scheme.sdk_signs) {
        (Some(sdk), true) => format!("{sdk}, which signs"),
        (Some(sdk), false) => format!("{sdk}, which judges"),
        (None, _) => "**unproven**".into(),
    }
}

/// What makes two callbacks the same event, and where that is shown.
fn one_event(scheme: &Scheme) -> String {
    let names = scheme.id_names.map(IdNames::as_str);
    let mut text = match (names, scheme.id_is_identity()) {
        (Some(names), true) => format!("{names} id"),
        (_, false) if scheme.repeats => {
            let time = if scheme.timestamp.is_some() { " and signed time" } else { "" };
            format!("**at least once**{time}")
        }
        _ => {
            let bytes = match (&scheme.identity, scheme.types_share_bytes) {
                (Some(_), _) => "what the entry names",
                (None, true) => "same bytes and type",
                (None, false) => "same bytes",
            };
            let apart = scheme.told_apart_by.as_ref().map(|at| differs_by(scheme, at));
            let named = names.map(|names| format!("; its id names a {names}"));
            let named = named.map(|text| text.replace("a event", "an event"));
            format!("{bytes}{}{}", apart.unwrap_or_default(), named.unwrap_or_default())
        }
    };
    if scheme.id_is_identity() && scheme.repeats {
        text += "; without one **at least once**";
    }
    match &scheme.identity_source {
        Some(url) => format!("{text} ([source]({url}))"),
        None => text,
    }
}

/// What differs between any two events, and what becomes of an event without it.
fn differs_by(scheme: &Scheme, at: &Location) -> String {
    let place = match scheme.items {
        Some(_) => at.to_string().replace("of the JSON body", "of the item"),
        None => at.to_string().replace(" of the JSON body", ""),
    };
    let without = if scheme.covers(at) { "; without it **at least once**" } else { "" };
    format!(" (differs by {place}{without})")
}

fn retries(horizon: Documented) -> String {
    match horizon {
        Documented::Time(Duration::ZERO) => "never".into(),
        horizon => horizon.to_string(),
    }
}

fn signed(scheme: &Scheme) -> String {
    if scheme.is_token() {
        return "nothing: **weak**".into();
    }
    let content = &scheme.signature.content;
    let id = scheme.id.as_ref().is_some_and(|at| scheme.covers(at));
    let all = [
        ("body", !scheme.body_unsigned),
        ("id", id),
        ("time", scheme.timestamp.is_some()),
        ("URL", scheme.signs_url()),
        ("method", content.covers(&Part::Method)),
    ];
    let names = all.iter().filter(|(_, signed)| *signed).map(|(name, _)| *name);
    let weak = match scheme.weakness() {
        Some(Weakness::BodyUnsigned) => Some("no body: **weak**"),
        Some(Weakness::LengthExtension) => Some("but by a digest that can be extended: **weak**"),
        Some(Weakness::Checksum) => Some("but a checksum of the body: **weak**"),
        Some(Weakness::AnyCustomer) => Some("but not for whom: **weak**"),
        _ => None,
    };
    names.chain(weak).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_catalogue_says() {
        let page = include_str!("../../../docs/providers.md");
        assert!(page == table(), "run: zentra source list > docs/providers.md");
        // The README and the package's description have the same numbers.
        let schemes = || Scheme::names().filter_map(Scheme::named);
        let (all, proven) = (schemes().count(), schemes().filter(|of| of.proof.is_some()).count());
        let readme = include_str!("../README.md").replace('\n', " ");
        assert!(readme.contains(&format!("catalogue has {all} providers")), "{all}");
        assert!(readme.contains(&format!("For {proven} of them")), "{proven}");
        assert!(env!("CARGO_PKG_DESCRIPTION").contains(&format!("webhooks of {all} providers")));
    }
}
