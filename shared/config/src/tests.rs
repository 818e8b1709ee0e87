use std::os::unix::fs::PermissionsExt;

use super::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The example of the README and of docs/design.md.
const EXAMPLE: &str = include_str!("../../../deploy/zentra.example.toml");

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn example(role: Role, more: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut environment = environment(&[
        ("RABBITMQ_URL", "amqp://localhost"),
        ("REDIS_URL", "redis://localhost"),
        ("SEAL_KEY", "0123456789abcdef0123456789abcdef"),
        ("STRIPE_EU", "whsec_abc"),
        ("LEDGER_SIGNING", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ]);
    environment.extend(more.iter().map(|(k, v)| ((*k).into(), (*v).into())));
    let text = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY");
    Config::parse(&text, role, &environment, &[])
}

#[test]
fn the_example_file_reads_as_it_says() {
    let config = example(Role::Worker, &[]).unwrap();
    assert_eq!(config.namespace, "zentra");
    assert_eq!(config.ingress.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.worker_admin.to_string(), "127.0.0.1:9081");
    assert_eq!(config.lease, secs(30));
    let [ledger] = &config.destinations[..] else { panic!() };
    assert_eq!(ledger.url.as_ref().unwrap(), "http://127.0.0.1:9000/transfers");
    assert_eq!(ledger.subscribe, ["stripe-eu.charge.*", "acme.#"]);
    assert_eq!(ledger.signing[0].name, "k1");
    assert_eq!(ledger.retry, Policy::default());
    assert_eq!((ledger.concurrency, ledger.timeout), (16, secs(10)));
    let sources = example(Role::Ingress, &[]).unwrap().sources;
    assert_eq!(
        (sources[0].name.as_str(), sources[0].endpoint.provider.as_str()),
        ("stripe-eu", "stripe")
    );
}

#[test]
fn a_program_resolves_only_the_secrets_that_it_needs() {
    let text = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY");
    let only = |pairs: &[(&str, &str)], role| {
        Config::parse(&text, role, &environment(pairs), &[]).map(|_| ())
    };
    let rabbit = ("RABBITMQ_URL", "amqp://localhost");
    let redis = ("REDIS_URL", "redis://localhost");
    let seal = ("SEAL_KEY", "0123456789abcdef");
    assert!(only(&[rabbit, seal, ("STRIPE_EU", "x")], Role::Ingress).is_ok());
    assert!(only(&[rabbit, redis, seal, ("LEDGER_SIGNING", "c2ln")], Role::Worker).is_ok());
    assert!(only(&[rabbit, redis, seal], Role::Operator).is_ok());
    assert!(only(&[rabbit, seal], Role::Ingress).is_err());
    for nothing in ["", "\0\0"] {
        let refused = only(&[rabbit, seal, ("STRIPE_EU", nothing)], Role::Ingress).unwrap_err();
        assert!(refused.to_string().contains("the secret is empty"), "{refused}");
    }
}

#[test]
fn redis_is_one_server_or_what_sentinel_names_or_a_cluster() {
    let environment = environment(&[
        ("RABBITMQ_URL", "amqp://localhost"),
        ("REDIS_URL", "redis://localhost"),
        ("PRIMARY", "rediss://user:secret@primary/1"),
        ("LEDGER_SIGNING", "c2ln"),
        ("SEAL_KEY", "0123456789abcdef"),
    ]);
    let example = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY");
    let with = |setting: &str, role| {
        let text = example.replace("url = \"env:REDIS_URL\"", setting);
        Config::parse(&text, role, &environment, &[]).map(|config| config.redis.servers)
    };
    let urls = r#"urls = ["redis://a:26379", "redis://b:26379"]"#;
    let sentinel =
        format!("sentinel = {{ {urls}, service = \"mymaster\", primary = \"env:PRIMARY\" }}");
    let Ok(Some(RedisServers::Sentinel { urls: named, service, primary })) =
        with(&sentinel, Role::Worker)
    else {
        panic!("no sentinel")
    };
    assert_eq!((named.len(), &*service), (2, "mymaster"));
    assert_eq!(primary.expose(), b"rediss://user:secret@primary/1");
    let by_default = sentinel.replace(", primary = \"env:PRIMARY\"", "");
    assert!(with(&by_default, Role::Operator).is_ok());
    let cluster = format!("cluster = {{ {urls} }}");
    let found = with(&cluster, Role::Worker).unwrap();
    assert!(matches!(found, Some(RedisServers::Cluster { urls }) if urls.len() == 2));

    let one = "url = \"env:REDIS_URL\"";
    for (setting, problem) in [
        (format!("{one}\n{cluster}"), "redis.cluster: only one of url, sentinel and cluster"),
        (format!("{sentinel}\n{cluster}"), "redis.cluster: only one of"),
        (sentinel.replace(", service = \"mymaster\"", ""), "redis.sentinel.service: is missing"),
        ("cluster = { urls = [] }".into(), "redis.cluster.urls: is missing or empty"),
        ("cluster = { url = \"redis://a\" }".into(), "redis.cluster.url: is not a setting"),
        ("url = \"http://localhost\"".into(), "redis.url: must be a URL that starts with redis://"),
        (sentinel.replace("redis://b", "b"), "redis.sentinel.urls[1]:"),
        (String::new(), "redis.url: is missing"),
    ] {
        let refused = with(&setting, Role::Worker).unwrap_err().to_string();
        assert!(refused.contains(problem), "{setting}: {refused}");
    }
    let text = example.replace("env:RABBITMQ_URL", "redis://localhost");
    let refused = Config::parse(&text, Role::Ingress, &environment, &[]).unwrap_err().to_string();
    assert!(
        refused.contains("rabbitmq.urls[0]: must be a URL that starts with amqp://"),
        "{refused}"
    );
}

#[test]
fn all_problems_are_told_at_once_with_their_keys_and_without_a_value() {
    let text = r#"
        colour = "sk_live_1"
        [ingress]
        listen = "sk_live_2"
        [worker]
        lease = "15s"
        [rabbitmq]
        urls = ["amqp://user:sk_live_3@host"]
        [redis]
        url = "env:sk_live_4"
        [seal]
        keys = [{ name = "k", secret = "sk_live_5" }, { name = "k", secret = "env:SHORT" }]
        [source.a]
        provider = "sk_live_6"
        secrets = []
        [source.B]
        [destination.d]
        url = "http://user:sk_live_7@host/"
        subscribe = ["sk live 8*"]
        retry = { attempts = 0, jitter = 2, initial = "2h", max = "1h" }
        [destination.e]
        url = "http://host/"
        subscribe = ["a.#"]
        timeout = "8s"
    "#;
    let environment =
        environment(&[("SHORT", "sk_live_9"), ("ZENTRA__INGRESS__COLOR", "sk_live_0")]);
    let error = Config::parse(text, Role::Worker, &environment, &[]).unwrap_err();
    let message = error.to_string();
    assert!(!message.contains("sk_live") && !message.contains("sk live"), "{message}");
    let keys = [
        "colour: is not a setting",
        "ingress.color: is not a setting",
        "ingress.listen:",
        "rabbitmq.urls[0]:",
        "redis.url: the environment variable is not set",
        "seal.keys[0].secret:",
        "seal.keys[1].name: is used twice",
        "seal.keys: a seal key has at least 16 bytes",
        "source.a.provider:",
        "source.a.secrets:",
        "source: names are",
        "destination.d.url:",
        "destination.d.subscribe:",
        "destination.d.retry.attempts:",
        "destination.d.retry.jitter:",
        "destination.d.retry.initial:",
        "worker.lease: must be at least twice destination.e.timeout",
    ];
    for key in keys {
        assert!(message.contains(key), "{key} is not told:\n{message}");
    }
}

#[test]
fn broken_toml_is_told_by_its_line_and_never_quoted() {
    let text = "namespace = \"x\"\n[seal]\nkeys = sk_live_1\n";
    let error = Config::parse(text, Role::Worker, &Environment::new(), &[]).unwrap_err();
    assert_eq!(error.0, ["line 3 is not valid TOML"]);
}

#[test]
fn the_environment_and_the_command_line_override_any_key() {
    let more = [
        ("ZENTRA__INGRESS__LISTEN", "0.0.0.0:1"),
        ("ZENTRA__DESTINATION__LEDGER__CONCURRENCY", "3"),
        ("ZENTRA__SOURCE__STRIPE_EU__PROVIDER", "github"),
    ];
    let config = example(Role::Ingress, &more).unwrap();
    assert_eq!(config.ingress.listen.to_string(), "0.0.0.0:1");
    assert_eq!(config.destinations[0].concurrency, 3);
    assert_eq!(config.sources[0].endpoint.provider, "github");
    let text = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY");
    let environment = environment(&[
        ("RABBITMQ_URL", "amqp://b"),
        ("REDIS_URL", "redis://b"),
        ("SEAL_KEY", "0123456789abcdef"),
    ]);
    let set = [("worker.admin", ":0".to_owned())];
    let config = Config::parse(&text, Role::Operator, &environment, &set).unwrap();
    assert_eq!(config.worker_admin.to_string(), "127.0.0.1:0");
}

#[test]
fn a_provider_that_signs_where_it_sends_to_needs_the_public_url() {
    let square = |more: &str| {
        let source = format!(
            "[source.square]\nprovider = \"square\"\n{more}\n\
             secrets = [{{ name = \"k\", secret = \"env:STRIPE_EU\" }}]\n"
        );
        let text = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY") + &source;
        let secrets = environment(&[
            ("RABBITMQ_URL", "amqp://b"),
            ("SEAL_KEY", "0123456789abcdef"),
            ("STRIPE_EU", "x"),
        ]);
        Config::parse(&text, Role::Ingress, &secrets, &[]).map_err(|error| error.to_string())
    };
    let url = "https://hooks.example.com/in/square";
    let config = square(&format!("public_url = \"{url}\"")).unwrap();
    let source = config.sources.iter().find(|source| source.name == "square").unwrap();
    assert_eq!(source.endpoint.public_url.as_deref(), Some(url));
    let message = square("").unwrap_err();
    assert!(message.contains("source.square.public_url: is missing"), "{message}");
    for bad in ["hooks.example.com", "https://me:pass@example.com/", "https://example.com/?a=1"] {
        let message = square(&format!("public_url = \"{bad}\"")).unwrap_err();
        assert!(message.contains("source.square.public_url: must be"), "{message}");
    }
}

#[test]
fn a_provider_of_the_users_own_is_checked_like_the_catalogues() {
    let own = |content: &str| {
        let scheme = format!(
            "[source.mine]\nprovider = \"mine\"\nsecrets = [{{ name = \"k\", secret = \"env:STRIPE_EU\" }}]\n\
             [provider.mine.signature]\nat = {{ header = \"x-sig\" }}\ngrammar = \"bare\"\n\
             algorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\ncontent = \"{content}\"\n"
        );
        let text = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY") + &scheme;
        let secrets = environment(&[
            ("RABBITMQ_URL", "amqp://b"),
            ("SEAL_KEY", "0123456789abcdef"),
            ("STRIPE_EU", "x"),
        ]);
        Config::parse(&text, Role::Ingress, &secrets, &[])
    };
    assert_eq!(own("{body}").unwrap().sources.len(), 2);
    let message = own("fixed").unwrap_err().to_string();
    assert!(message.contains("provider.mine: signature.content must cover {body}"), "{message}");
}

#[test]
fn an_entry_of_the_catalogue_is_overridden_and_its_answer_and_its_handshake_go_to_the_source() {
    let read = |more: &str| {
        let text = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY") + more;
        let secrets = environment(&[
            ("RABBITMQ_URL", "amqp://b"),
            ("SEAL_KEY", "0123456789abcdef"),
            ("STRIPE_EU", "x"),
        ]);
        Config::parse(&text, Role::Ingress, &secrets, &[])
    };
    let secrets = "secrets = [{ name = \"k\", secret = \"env:STRIPE_EU\" }]";
    let own = read(
        "[provider.stripe.signature]\nat = { header = \"x-own\" }\ngrammar = \"bare\"\n\
         algorithm = \"hmac-sha256\"\nencoding = \"hex\"\nkey = \"utf8\"\ncontent = \"{body}\"\n",
    );
    let own = own.unwrap();
    let stripe = own.sources.iter().find(|source| source.name == "stripe-eu").unwrap();
    assert!(stripe.endpoint.scheme.timestamp.is_none(), "it is the user's, not the catalogue's");

    let of = |provider: &str, more: &str| {
        let source = format!("[source.s]\nprovider = \"{provider}\"\n{secrets}\n{more}\n");
        read(&source)
            .map(|config| config.sources.into_iter().find(|source| source.name == "s").unwrap())
    };
    let success = |more: &str| {
        let success = of("xero", more).unwrap().success;
        (success.status.as_u16(), String::from_utf8(success.body.to_vec()).unwrap())
    };
    assert_eq!(success(""), (200, String::new()));
    assert_eq!(success("success_status = 202\nsuccess_body = \"yes\""), (202, "yes".into()));
    let token = "handshake_token = \"env:STRIPE_EU\"";
    assert!(of("meta", token).unwrap().endpoint.handshake_token.is_some());
    assert!(of("meta", "").unwrap().endpoint.handshake_token.is_none());
    let message = of("xero", token).unwrap_err().to_string();
    assert!(message.contains("source.s.handshake_token: has no effect"), "{message}");
}

#[test]
fn the_reference_page_is_what_the_code_reads() {
    let page = include_str!("../../../docs/configuration.md");
    assert!(page == reference(), "run: zentra config > docs/configuration.md");
}

#[test]
fn the_example_file_knows_every_key_and_its_default() {
    let (mut section, mut found) = (String::new(), std::collections::HashMap::new());
    for line in EXAMPLE.lines() {
        let text = line.trim_start_matches("# ");
        if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section =
                name.replace("stripe-eu", "NAME").replace("ledger", "NAME").replace("ops", "NAME")
                    + ".";
        } else if let Some((key, value)) = text.split_once('=') {
            let path = format!("{section}{}", key.trim());
            found.insert(path, (line.starts_with('#'), value.trim().to_owned()));
        }
    }
    for key in keys::KEYS {
        // Small tables are written on one line.
        let (table, last) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        let (inline, of_table) = (format!(" {last} = "), found.get(table));
        let in_line = || of_table.filter(|(_, value)| value.contains(&inline));
        let (commented, value) = found
            .get(key.path)
            .or_else(in_line)
            .unwrap_or_else(|| panic!("{} isn't in the example", key.path));
        let value = value.split_once(&inline).map_or(value.as_str(), |(_, value)| value);
        let default = key.default.escape_default().to_string();
        let same = value.starts_with(&default) || value.starts_with(&format!("\"{default}\""));
        assert!(!commented || key.default.is_empty() || same, "{}: {default}", key.path);
    }
}

#[test]
fn every_default_lies_within_its_own_bounds() {
    for key in keys::KEYS.iter().filter(|key| !key.default.is_empty()) {
        let problems = Problems::default();
        let (mut section, name) = section::holding(key.path, key.default, &problems);
        match key.kind {
            keys::Kind::Duration(..) => drop(section.duration(&name)),
            keys::Kind::Size(..) => drop(section.size(&name)),
            keys::Kind::Integer(..) => drop(section.integer(&name)),
            keys::Kind::Integers(..) => drop(section.integers(&name)),
            keys::Kind::Number(..) => drop(section.number(&name)),
            keys::Kind::Address => drop(section.address(&name)),
            _ => {}
        }
        assert_eq!(problems.into_inner(), Vec::<String>::new(), "{}", key.path);
    }
}

#[test]
fn the_whole_example_can_be_checked_and_the_notes_name_what_its_reader_should_know() {
    let more = [
        ("ZENTRA__SOURCE__HUB__PROVIDER", "github"),
        ("ZENTRA__SOURCE__HUB__SECRETS", r#"[{ name = "k", secret = "env:STRIPE_EU" }]"#),
        ("ZENTRA__SOURCE__FORM__PROVIDER", "webflow"),
        ("ZENTRA__SOURCE__FORM__SECRETS", r#"[{ name = "k", secret = "env:STRIPE_EU" }]"#),
        ("ZENTRA__DESTINATION__LEDGER__URL", "http://ledger.example/"),
    ];
    let notes = example(Role::Check, &more).unwrap().advice().join("\n");
    let keys = [
        "source.hub: no destination subscribes to it",
        "source.hub: github signs no time",
        "source.hub: github signs no event id",
        "source.form: webflow sends no event id",
        "destination.ledger.subscribe: acme.# matches no source",
        "destination.ledger.url: events travel unencrypted",
    ];
    for key in keys {
        assert!(notes.contains(key), "{key} is not noted:\n{notes}");
    }
    assert!(!notes.contains("source.stripe-eu:"), "{notes}");
    let token = "signature = { at = { header = \"x-token\" }, grammar = \"bare\", algorithm = \"token\", \
                 encoding = \"text\", key = \"utf8\", content = \"\" }";
    let text = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY")
        + &format!(
            "[source.lab]\nprovider = \"lab\"\nsecrets = [{{ name = \"k\", secret = \"env:STRIPE_EU\" }}]\n\
             [provider.lab]\n{token}\n"
        );
    let secrets = environment(&[
        ("RABBITMQ_URL", "amqp://b"),
        ("SEAL_KEY", "0123456789abcdef"),
        ("STRIPE_EU", "x"),
    ]);
    let notes = Config::parse(&text, Role::Ingress, &secrets, &[]).unwrap().advice().join("\n");
    assert!(notes.contains("source.lab: lab is weak: it signs nothing"), "{notes}");
    assert!(notes.contains("source.lab.secrets: k has fewer than 16 bytes"), "{notes}");
    assert!(
        notes.contains("source.stripe-eu.secrets: live-2026 is a secret of source.lab too"),
        "{notes}"
    );
}

#[test]
fn secrets_that_can_be_guessed_or_changed_by_others_are_noted_and_never_shown() {
    let folder = std::env::temp_dir().join(format!("zentra-weak-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("seal");
    std::fs::write(&path, "aaaaaaaaaaaaaaaabbbbbbbb").unwrap();
    for (mode, noted) in [(0o666, true), (0o644, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let text = EXAMPLE.replace("/run/secrets/seal", path.to_str().unwrap());
        let secrets =
            environment(&[("RABBITMQ_URL", "amqp://b"), ("STRIPE_EU", "whsec_0123456789abcdef")]);
        let notes = Config::parse(&text, Role::Ingress, &secrets, &[]).unwrap().advice().join("\n");
        let written = notes.contains("is in a file that everyone can write to");
        assert_eq!(written, noted, "{mode:o}: {notes}");
        assert!(notes.contains("is not a random key") && !notes.contains("aaaa"), "{notes}");
        assert!(!notes.contains("fewer than 16"), "{notes}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_file_env_adds_to_the_environment_and_its_lines_are_never_quoted() {
    let folder = std::env::temp_dir().join(format!("zentra-env-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("zentra.toml");
    let read = |text: &str| {
        std::fs::write(folder.join(".env"), text).unwrap();
        with_env_file(&config, &environment(&[("KNOWN", "outside")]))
    };
    let all = read("# comment\nKNOWN=inside\nSTRIPE=whsec_a=b\nQUOTED='a $b'\n").unwrap();
    assert_eq!(all["KNOWN"], "outside");
    assert_eq!((&*all["STRIPE"], &*all["QUOTED"]), ("whsec_a=b", "a $b"));
    assert_eq!(read("\u{feff}PEM=\"one\ntwo\"\r\nB=2\r\n").unwrap()["PEM"], "one\ntwo");
    for (text, says) in [
        ("sk_live_1 sk_live_2\n", "line 1 must be NAME=VALUE"),
        ("A=1\nsk_live_1=\nsk_live_1 sk_live_2\n", "line 3 must be NAME=VALUE"),
        ("PEM=\"one\ntwo\"\nA=sk_live_1 sk_live_2\n", "line 3 must be NAME=VALUE"),
        ("A=sk_live_1\nexport A=sk_live_2\n", "line 2 sets a name again"),
        ("A=sk_live_1$HOME\n", "line 1 has a $"),
        ("A=\"sk_live_1$HOME\"\n", "line 1 has a $"),
    ] {
        let message = read(text).unwrap_err().to_string();
        assert!(message.contains(says) && !message.contains("sk_live"), "{text}: {message}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(with_env_file(&config, &Environment::new()).unwrap(), Environment::new());
}

#[test]
fn an_old_name_is_read_as_its_key_and_both_are_a_problem() {
    let old = ("ZENTRA__REDIS__RETENTION", "90d");
    let config = example(Role::Check, &[old]).unwrap();
    assert_eq!(config.store.retention, Duration::from_secs(90 * 24 * 3600));
    let both = example(Role::Check, &[old, ("ZENTRA__STORE__RETENTION", "90d")]).unwrap_err();
    let message = "redis.retention: is an old name of store.retention, which is also set";
    assert!(both.to_string().contains(message), "{both}");
    for (old, new) in aliases::ALIASES {
        assert!(keys::find(new).is_some() && keys::find(old).is_none(), "{old} → {new}");
    }
}

#[test]
fn what_is_remembered_outlasts_every_retry() {
    let message = |more: &[(&str, &str)]| example(Role::Check, more).unwrap_err().to_string();
    let longer = ("ZENTRA__DESTINATION__LEDGER__RETRY__MAX_AGE", "5d");
    let all = message(&[("ZENTRA__REDIS__RETENTION", "3d"), longer]);
    let key = "source.stripe-eu.retention";
    let rule = format!("{key} (or store.retention): must be longer than destination.ledger.retry");
    assert!(all.contains(&rule), "{all}");
    assert!(!all.contains("sends its callbacks"), "it is longer by itself: {all}");
    let own = message(&[("ZENTRA__SOURCE__STRIPE-EU__RETENTION", "3d")]);
    assert!(own.contains(&format!("{key}: must be longer than stripe sends")), "{own}");
}

#[test]
fn a_source_has_a_memory_of_its_own_or_that_of_all() {
    let retention = |more: &[(&str, &str)]| {
        example(Role::Worker, more).map(|config| config.sources[0].retention.as_secs() / 86_400)
    };
    let all = ("ZENTRA__REDIS__RETENTION", "40d");
    assert_eq!(retention(&[all]).unwrap(), 40);
    let adyen = [
        ("ZENTRA__SOURCE__STRIPE-EU__PROVIDER", "adyen"),
        ("STRIPE_EU", "00ff"),
        ("ZENTRA__REDIS__RETENTION", "20d"),
    ];
    assert_eq!(retention(&adyen).unwrap(), 31, "it sends again for thirty days");
    let source = |days| ("ZENTRA__SOURCE__STRIPE-EU__RETENTION", days);
    assert_eq!(retention(&[all, source("7d")]).unwrap(), 7);
    assert!(retention(&[all, source("2d")]).is_err());
}

#[test]
fn an_unsigned_id_is_trusted_only_where_the_config_says_so_and_that_is_noted() {
    let github = [
        ("ZENTRA__SOURCE__HUB__PROVIDER", "github"),
        ("ZENTRA__SOURCE__HUB__SECRETS", r#"[{ name = "k", secret = "env:STRIPE_EU" }]"#),
    ];
    let with = |identity| [github[0], github[1], ("ZENTRA__SOURCE__HUB__IDENTITY", identity)];
    let hub = |more: &[(&str, &str)]| {
        let config = example(Role::Check, more)?;
        let trusts =
            config.sources.iter().any(|source| source.name == "hub" && source.endpoint.trusts_id);
        Ok::<_, ConfigError>((trusts, config.advice().join("\n")))
    };
    assert!(!hub(&github).unwrap().0);
    let (trusts, notes) = hub(&with("id")).unwrap();
    assert!(trusts && notes.contains("source.hub.identity: github signs no event id"), "{notes}");
    assert!(hub(&with("perhaps")).unwrap_err().to_string().contains("source.hub.identity"));
}

#[test]
fn certificate_and_key_are_told_apart_and_never_quoted() {
    let folder = std::env::temp_dir();
    let path = folder.join(format!("zentra-config-{}.pem", std::process::id()));
    std::fs::write(&path, "sk_live_1").unwrap();
    let reference = format!("file:{}", path.display());
    let tls = |key: &str| {
        let more = [("ZENTRA__INGRESS__TLS__CERTIFICATE", reference.as_str()), (key, &reference)];
        example(Role::Ingress, &more).unwrap_err().to_string()
    };
    let message = tls("ZENTRA__INGRESS__TLS__KEY");
    assert!(message.contains("ingress.tls.certificate: holds no certificate"), "{message}");
    assert!(!message.contains("sk_live"), "{message}");
    let message = tls("ZENTRA__INGRESS__TLS__CERTIFICATE");
    assert!(message.contains("ingress.tls.key: is missing"), "{message}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_destination_has_shards_at_rabbitmq_and_none_on_a_file() {
    let shards = ("ZENTRA__DESTINATION__LEDGER__SHARDS", "4");
    assert_eq!(example(Role::Worker, &[shards]).unwrap().destinations[0].shards, 4);
    let file = EXAMPLE
        .replace("urls = [\"env:RABBITMQ_URL\"]", "")
        .replace("url = \"env:REDIS_URL\"", "")
        .replace("file:/run/secrets/seal", "env:SEAL_KEY")
        + "\n[embedded]\npath = \"zentra.db\"\n";
    let environment = environment(&[
        ("SEAL_KEY", "0123456789abcdef"),
        ("STRIPE_EU", "x"),
        ("LEDGER_SIGNING", "c2ln"),
        shards,
    ]);
    let config = Config::parse(&file, Role::Standalone, &environment, &[]).unwrap();
    assert_eq!(config.destinations[0].shards, 1);
}

#[test]
fn one_config_has_one_backend_and_each_program_says_which_it_needs() {
    let file = EXAMPLE
        .replace("urls = [\"env:RABBITMQ_URL\"]", "")
        .replace("url = \"env:REDIS_URL\"", "")
        .replace("file:/run/secrets/seal", "env:SEAL_KEY")
        + "\n[embedded]\npath = \"zentra.db\"\n";
    let secrets = environment(&[
        ("SEAL_KEY", "0123456789abcdef"),
        ("STRIPE_EU", "x"),
        ("LEDGER_SIGNING", "c2ln"),
    ]);
    let message = |text: &str, role| match Config::parse(text, role, &secrets, &[]) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    for role in [Role::Standalone, Role::Operator, Role::Check] {
        assert_eq!(message(&file, role), "", "{role:?}");
    }
    for role in [Role::Ingress, Role::Worker] {
        assert!(
            message(&file, role).contains("embedded.path: is for zentra standalone"),
            "{role:?}"
        );
    }
    let without = file.replace("path = \"zentra.db\"", "");
    assert!(message(&without, Role::Standalone).contains("embedded.path: is missing"));
    let both = file.replace("[rabbitmq]", "[rabbitmq]\nurls = [\"amqp://localhost\"]");
    assert!(
        message(&both, Role::Check)
            .contains("rabbitmq.urls: cannot be combined with [embedded] path")
    );
}

#[test]
fn certificates_of_clients_are_checked_at_the_start_and_only_where_they_are_needed() {
    let refused = |role, more: &[(&str, &str)]| match example(role, more) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    let no_pem = ("NO_PEM", "sk_live_1");
    for (of, role) in [
        ("RABBITMQ", Role::Ingress),
        ("REDIS", Role::Worker),
        ("DESTINATION__LEDGER", Role::Worker),
    ] {
        let key = |name: &str| format!("ZENTRA__{of}__TLS__{name}");
        let section = of.to_lowercase().replace("__", ".");
        let ca = refused(role, &[(&key("CA"), "env:NO_PEM"), no_pem]);
        let says = format!("{section}.tls.ca: holds no certificate in PEM form");
        assert!(ca.contains(&says) && !ca.contains("sk_live"), "{ca}");
        let half = refused(role, &[(&key("CERTIFICATE"), "env:NO_PEM"), no_pem]);
        assert!(half.contains(&format!("{section}.tls.key: is missing")), "{half}");
        let gone = refused(role, &[(&key("KEY"), "file:/nowhere"), no_pem]);
        assert!(gone.contains(&format!("{section}.tls.key: cannot read the file")), "{gone}");
    }
    // The ingress uses neither Redis nor destinations.
    for of in ["REDIS", "DESTINATION__LEDGER"] {
        let ca = format!("ZENTRA__{of}__TLS__CA");
        assert_eq!(refused(Role::Ingress, &[(&ca, "file:/nowhere")]), "");
    }
}

/// A CA certificate that `openssl req -x509 -newkey ed25519 -nodes -subj /CN=ca` made.
const CA: &str = include_str!("ca.pem");

#[test]
fn with_certificates_of_a_client_every_url_has_to_use_tls() {
    let with = |of: &str, more: &[(&str, &str)]| {
        let ca = format!("ZENTRA__{of}__TLS__CA");
        let more = [&[(ca.as_str(), "env:CA"), ("CA", CA)], more].concat();
        match example(Role::Worker, &more) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    assert!(with("RABBITMQ", &[]).contains("rabbitmq.urls: must all start with amqps://"));
    assert_eq!(with("RABBITMQ", &[("RABBITMQ_URL", "amqps://localhost")]), "");
    assert!(with("REDIS", &[]).contains("must start with rediss://"));
    assert_eq!(with("REDIS", &[("REDIS_URL", "rediss://localhost")]), "");
    assert!(with("DESTINATION__LEDGER", &[]).contains("must start with https://"));
    let https = ("ZENTRA__DESTINATION__LEDGER__URL", "https://localhost/");
    assert_eq!(with("DESTINATION__LEDGER", &[https]), "");
}

/// The example with these lines in its destination's table.
fn with_lines(lines: &str, more: &[(&str, &str)], role: Role) -> Result<Config, ConfigError> {
    let text = EXAMPLE.replace("file:/run/secrets/seal", "env:SEAL_KEY");
    let text = text.replace("[destination.ledger]\n", &format!("[destination.ledger]\n{lines}\n"));
    let known = [
        ("RABBITMQ_URL", "amqp://localhost"),
        ("REDIS_URL", "redis://localhost"),
        ("SEAL_KEY", "0123456789abcdef0123456789abcdef"),
        ("STRIPE_EU", "whsec_abc"),
        ("LEDGER_SIGNING", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    Config::parse(&text, role, &environment(&[&known, more].concat()), &[])
}

#[test]
fn headers_of_a_destination_are_secrets_of_the_worker_and_none_of_zentras_own() {
    let lines = r#"headers = { Authorization = "env:TOKEN", x-tenant = "env:TENANT" }"#;
    let values = [("TOKEN", "Bearer 0123456789"), ("TENANT", "acme\u{e9}")];
    let config = with_lines(lines, &values, Role::Worker).unwrap();
    let headers = &config.destinations[0].headers;
    assert_eq!(headers["authorization"], "Bearer 0123456789");
    assert_eq!(headers["x-tenant"].as_bytes(), "acme\u{e9}".as_bytes());
    assert!(!format!("{config:?}").contains("0123456789"));
    // Other programs do without the values, and find mistakes all the same.
    assert!(with_lines(lines, &[], Role::Ingress).unwrap().destinations[0].headers.is_empty());
    for (headers, error) in [
        ("Idempotency-Key = \"env:TOKEN\"", "headers.Idempotency-Key: cannot be set"),
        ("webhook_id = \"env:TOKEN\"", "headers.webhook_id: cannot be set"),
        ("zentra-attempt = \"env:TOKEN\"", "headers.zentra-attempt: cannot be set"),
        ("ce-id = \"env:TOKEN\"", "headers.ce-id: cannot be set"),
        ("Host = \"env:TOKEN\"", "headers.Host: cannot be set"),
        ("\"a b\" = \"env:TOKEN\"", "headers: has a name that is not a header's name"),
        ("a = \"env:TOKEN\", A = \"env:TOKEN\"", "is set twice"),
        ("a = \"env:LINES\"", "headers.a: holds bytes that a header cannot have"),
        ("a = \"env:NONE\"", "headers.a: the environment variable NONE is not set"),
        ("a = \"s3cr3t\"", "headers.a: must be \"env:NAME\" or \"file:PATH\""),
        ("a = 7", "headers: must be a table of strings"),
    ] {
        let lines = format!("headers = {{ {headers} }}");
        let more = [("TOKEN", "Bearer 0123456789"), ("LINES", "one\r\ntwo: s3cr3t")];
        let message = with_lines(&lines, &more, Role::Worker).unwrap_err().to_string();
        assert!(
            message.contains(&format!("destination.ledger.{error}")) || message.contains(error)
        );
        assert!(!message.contains("s3cr3t") && !message.contains("0123456789"), "{message}");
    }
}

#[test]
fn the_method_of_a_destination_has_a_body() {
    let method = |text: &str| {
        let config = with_lines(&format!("method = \"{text}\""), &[], Role::Ingress);
        config.map(|config| config.destinations[0].method.to_string())
    };
    for text in ["POST", "PUT", "PATCH"] {
        assert_eq!(method(text).unwrap(), text);
    }
    for text in ["GET", "DELETE", "post", "", "P T"] {
        let message = method(text).unwrap_err().to_string();
        assert!(message.contains("destination.ledger.method: must be POST, PUT or PATCH"));
    }
}
