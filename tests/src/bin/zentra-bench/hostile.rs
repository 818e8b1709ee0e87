//! The cost of a forged callback of 1 MiB. For each provider of the catalogue whose callbacks can
//! be created here: bodies that are expensive to parse, under the headers of a genuine callback.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use webhook_verify::{Location, Scheme, Unverified};

use crate::verify::made;

/// The target for each.
const BOUND: Duration = Duration::from_millis(5);
const SIZE: usize = 1 << 20;
/// Number of runs. The best one counts.
const ROUNDS: usize = 3;

struct Hostile {
    name: &'static str,
    kind: &'static str,
    encoding: Option<&'static str>,
    body: Bytes,
}

/// For one provider, or for all if the name is empty.
pub(crate) fn run(only: &str) -> anyhow::Result<()> {
    let mut worst: BTreeMap<&str, (Duration, &str)> = BTreeMap::new();
    let (mut made_here, mut over) = (0, Vec::new());
    for provider in Scheme::names().filter(|name| only.is_empty() || *name == only) {
        let Some((endpoint, genuine)) = Scheme::named(provider).and_then(|it| made(provider, it))
        else {
            continue;
        };
        made_here += 1;
        for hostile in bodies(&endpoint.scheme) {
            let mut headers = genuine.headers.clone();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(hostile.kind));
            if let Some(encoding) = hostile.encoding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            let callback = Unverified {
                method: genuine.method.clone(),
                headers,
                query: genuine.query.clone(),
                body: hostile.body,
                ..genuine
            };
            let took = (0..ROUNDS).map(|_| {
                let started = Instant::now();
                drop(black_box(callback.verify(black_box(&endpoint))));
                started.elapsed()
            });
            let took = took.min().unwrap_or_default();
            let row = worst.entry(hostile.name).or_default();
            *row = (*row).max((took, provider));
            if took > BOUND {
                over.push((took, provider, hostile.name));
            }
        }
    }
    ensure!(made_here > 0, "no provider is named `{only}` and can be made here");
    println!("\nverifying 1 MiB that is made to be expensive, the worst of {made_here} providers");
    for (body, (took, provider)) in worst {
        println!("{body:<34} {:>9.2} ms   {provider}", ms(took));
    }
    println!("above {BOUND:?}: {}", over.len());
    over.sort();
    for (took, provider, body) in over.iter().rev().take(20) {
        println!("  {provider:<32} {:>9.2} ms   {body}", ms(*took));
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// As many repetitions as fit.
fn repeated(piece: impl Fn(usize) -> String) -> String {
    let mut text = String::with_capacity(SIZE + 2048);
    for at in 0.. {
        if text.len() >= SIZE - 2048 {
            break;
        }
        text += &piece(at);
    }
    text
}

fn bodies(scheme: &Scheme) -> Vec<Hostile> {
    let json = |name, body: String| Hostile {
        name,
        kind: "application/json",
        encoding: None,
        body: body.into(),
    };
    let form = |name, body: String| Hostile {
        name,
        kind: "application/x-www-form-urlencoded",
        encoding: None,
        body: body.into(),
    };
    let long = "x".repeat(1000);
    // The same text, percent-encoded and plain.
    let alike = |at: usize| if at.is_multiple_of(2) { "%78".repeat(330) } else { "x".repeat(330) };
    let field = match &scheme.id {
        Some(Location::Json(pointer)) => pointer.split('/').nth(1).unwrap_or("id").to_owned(),
        _ => "id".to_owned(),
    };
    let items = scheme.items.clone().unwrap_or_default();
    let mut ones = format!("[{}1]", repeated(|_| "1,".into()));
    for step in items.split('/').skip(1).collect::<Vec<_>>().into_iter().rev() {
        ones = format!("{{\"{step}\":{ones}}}");
    }
    let mut all = vec![
        json("an array of 1", ones),
        json("an array of objects", format!("[{}{{}}]", repeated(|_| "{},".into()))),
        json("many fields", format!("{{{}\"z\":1}}", repeated(|at| format!("\"f{at}\":1,")))),
        json(
            "one field many times",
            format!("{{{}\"z\":1}}", repeated(|_| format!("\"{field}\":\"x\","))),
        ),
        json("weights", format!("{{{}\"z\":1}}", repeated(|_| "\"weight\":1,".into()))),
        json("almost weights", format!("{{\"z\":\"{}\"}}", repeated(|_| "weight".into()))),
        json("escapes", format!("{{\"{field}\":\"{}\"}}", repeated(|_| "\\u0041".into()))),
        json("nested", repeated(|_| "[".into())),
        json("slashes", format!("{{\"z\":\"{}\"}}", repeated(|_| "/é".into()))),
        form("names alike", repeated(|at| format!("{long}{at}=&"))),
        form("names alike and encoded", repeated(|at| format!("{}{at}=&", alike(at)))),
        form("one name and values alike", repeated(|at| format!("a={long}{at}&"))),
        form("one name and values encoded", repeated(|at| format!("a={}{at}&", alike(at)))),
        form("many fields of a form", repeated(|at| format!("{at}=&"))),
        form("a long value, encoded", format!("a={}", repeated(|_| "%41+".into()))),
    ];
    let mut parts = repeated(|at| {
        format!("--b\r\ncontent-disposition: form-data; name=\"f{at}\"\r\n\r\nx\r\n")
    });
    let _ = write!(parts, "--b--\r\n");
    all.push(Hostile {
        name: "many parts",
        kind: "multipart/form-data; boundary=b",
        encoding: None,
        body: parts.into(),
    });
    let compressed = |text: &[u8]| {
        let mut to = GzEncoder::new(Vec::new(), Compression::best());
        let written = to.write_all(text).and_then(|()| to.finish());
        written.unwrap_or_default()
    };
    all.push(Hostile {
        name: "compressed zeros",
        kind: "application/json",
        encoding: Some("gzip"),
        body: compressed(&vec![b' '; 4 << 20][..]).into(),
    });
    let empty = compressed(b"");
    all.push(Hostile {
        name: "many empty members of gzip",
        kind: "application/json",
        encoding: Some("gzip"),
        body: empty.repeat(SIZE / empty.len()).into(),
    });
    all
}
