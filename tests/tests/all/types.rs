//! The console's scripts are checked by TypeScript against the API's description.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};
use zentra_tests::services::folder;

/// The type of a schema. The variants of an enumeration are one type, with what each has.
fn typed(api: &Value, schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap().to_owned();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().map(|one| typed(api, one)).collect::<Vec<_>>().join(" & ");
    }
    if let Some(one) = schema["oneOf"].as_array() {
        return one_of(api, one);
    }
    match &schema["type"] {
        // `["string", "null"]`
        Value::Array(types) => {
            let of = |kind: &Value| {
                let mut one = schema.clone();
                one["type"] = kind.clone();
                typed(api, &one)
            };
            types.iter().map(of).collect::<Vec<_>>().join(" | ")
        }
        Value::String(kind) => match kind.as_str() {
            "integer" | "number" => "number".into(),
            "array" if schema["prefixItems"].is_array() => {
                let items = schema["prefixItems"].as_array().unwrap();
                format!(
                    "[{}]",
                    items.iter().map(|one| typed(api, one)).collect::<Vec<_>>().join(", ")
                )
            }
            "array" => format!("({})[]", typed(api, &schema["items"])),
            "object" => object(api, schema),
            kind => kind.to_owned(),
        },
        _ => "any".into(),
    }
}

fn one_of(api: &Value, variants: &[Value]) -> String {
    let fields: Option<Vec<_>> = variants.iter().map(|one| properties(api, one)).collect();
    let Some(fields) = fields else {
        return variants.iter().map(|one| typed(api, one)).collect::<Vec<_>>().join(" | ");
    };
    let mut merged: Map<String, Value> = Map::new();
    for (name, schema) in fields.iter().flatten() {
        let known = merged.entry(name).or_insert_with(|| Value::Object(Map::new()));
        match (known.get_mut("enum").and_then(Value::as_array_mut), schema["enum"].as_array()) {
            (Some(known), Some(more)) => known.extend(more.iter().cloned()),
            _ => *known = schema.clone(),
        }
    }
    let has = |name: &String| fields.iter().all(|fields| fields.contains_key(name));
    let fields = merged.iter().map(|(name, schema)| {
        let optional = if has(name) { "" } else { "?" };
        format!("{name:?}{optional}: {}", typed(api, schema))
    });
    format!("{{ {} }}", fields.collect::<Vec<_>>().join("; "))
}

/// The properties of an object, also if it is put together of several.
fn properties(api: &Value, schema: &Value) -> Option<Map<String, Value>> {
    if let Some(name) = schema["$ref"].as_str() {
        return properties(api, api.pointer(name.trim_start_matches('#')).unwrap());
    }
    if let Some(all) = schema["allOf"].as_array() {
        let all: Option<Vec<_>> = all.iter().map(|one| properties(api, one)).collect();
        return Some(all?.into_iter().flatten().collect());
    }
    schema["properties"].as_object().cloned()
}

fn object(api: &Value, schema: &Value) -> String {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut fields = Vec::new();
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let optional = if required.contains(&name.as_str()) { "" } else { "?" };
        fields.push(format!("{name:?}{optional}: {}", typed(api, of)));
    }
    if schema["additionalProperties"].is_object() {
        fields.push(format!("[name: string]: {}", typed(api, &schema["additionalProperties"])));
    }
    format!("{{ {} }}", fields.join("; "))
}

/// The type of the answers of a method by the path, most specific paths first.
fn answers(api: &Value, method: &str) -> String {
    let mut paths: Vec<(String, String)> = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        let schema = &item[method]["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let parts = path.trim_start_matches('/').split('/');
        let parts = parts.map(|part| if part.starts_with('{') { "${string}" } else { part });
        paths.push((parts.collect::<Vec<_>>().join("/"), typed(api, schema)));
    }
    // What ends with a word comes before what ends with anything.
    paths.sort_by_key(|(path, _)| (path.ends_with('}'), std::cmp::Reverse(path.len())));
    let cases = paths.iter().map(|(path, answer)| {
        format!("  P extends `{path}` | `{path}?${{string}}` ? {answer} :\n")
    });
    cases.collect::<String>() + "  never"
}

fn types(api: &Value) -> String {
    let mut text = String::from("declare namespace Api {\n");
    for (name, schema) in api["components"]["schemas"].as_object().unwrap() {
        writeln!(text, "type {name} = {};", typed(api, schema)).unwrap();
    }
    for (name, method) in [("Get", "get"), ("Post", "post")] {
        writeln!(text, "type {name}<P extends string> =\n{};", answers(api, method)).unwrap();
    }
    text + "}\n"
}

/// TypeScript's messages about the console's scripts in a folder, without those about vendored ones.
fn checked(console: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let api = fs::read(root.join("docs/openapi.json")).unwrap();
    let work = folder("types");
    for name in ["tsconfig.json", "console.d.ts"] {
        fs::copy(root.join("tests/console").join(name), work.join(name)).unwrap();
    }
    fs::write(work.join("api.d.ts"), types(&serde_json::from_slice(&api).unwrap())).unwrap();
    let project = fs::read_to_string(work.join("tsconfig.json")).unwrap();
    let script = console.join("js/app.js").canonicalize().unwrap();
    let project =
        project.replace("../../operator/console/js/app.js", &script.display().to_string());
    fs::write(work.join("tsconfig.json"), project).unwrap();
    let output = Command::new("tsc").arg("-p").arg(&work).output().unwrap();
    let messages = String::from_utf8(output.stdout).unwrap();
    messages.lines().filter(|line| line.contains("/js/")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_console_uses_the_api_as_it_is_described() {
    let console = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/console");
    assert_eq!(checked(&console), "");

    // What the API does not have is reported: in answers, in what is passed on, and in requests.
    let wrong = folder("console");
    let copied = Command::new("cp").arg("-r").arg(console.join(".")).arg(&wrong).status().unwrap();
    assert!(copied.success());
    let wrongs = [
        ("dead.js", "{ done } = await", "{ drained } = await"),
        ("overview.js", "one.last_accepted", "one.accepted_last"),
        ("event.js", "verified_with)", "verified_by)"),
        ("jobs.js", "progress.leftover)", "progress.left_over)"),
    ];
    for (file, from, to) in wrongs {
        let script = wrong.join("js").join(file);
        let right = fs::read_to_string(&script).unwrap();
        assert!(right.contains(from), "{file}: {from}");
        fs::write(&script, right.replacen(from, to, 1)).unwrap();
    }
    let messages = checked(&wrong);
    for (file, _, _) in wrongs {
        let of = messages.lines().find(|line| line.contains(file)).unwrap_or_default();
        assert!(of.contains("does not exist"), "{file}: {messages}");
    }
}
