//! Databases of applications, which only tests need: private servers of PostgreSQL and MariaDB, and SQLite files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use zentra_rehearse::sandbox::{START, newest};

use crate::namespace;
use crate::services::{Guarded, folder, free_port, output, poll, start};

/// A database of its own. The servers are shared by the tests of a process.
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A database on PostgreSQL: its name.
    Postgres(String),
    /// A database on MariaDB: its name.
    Mariadb(String),
}

static POSTGRES: LazyLock<Postgres> = LazyLock::new(Postgres::start);
static MARIADB: LazyLock<Mariadb> = LazyLock::new(Mariadb::start);

impl Database {
    /// A new SQLite file.
    pub fn sqlite() -> Self {
        Self::Sqlite(folder("database").join("application.db"))
    }

    /// A new database on PostgreSQL.
    pub async fn postgres() -> Self {
        let name = namespace().replace('-', "_");
        let main = Self::Postgres("postgres".into());
        main.run(&format!("CREATE DATABASE {name}")).await;
        Self::Postgres(name)
    }

    /// A new database on MariaDB.
    pub async fn mariadb() -> Self {
        let name = namespace().replace('-', "_");
        let main = Self::Mariadb("mysql".into());
        main.run(&format!("CREATE DATABASE {name}")).await;
        Self::Mariadb(name)
    }

    /// The path of a file, or the URL of a database.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(name) => format!("postgres://zentra@127.0.0.1:{}/{name}", POSTGRES.port),
            Self::Mariadb(name) => format!("mysql://root@127.0.0.1:{}/{name}", MARIADB.port),
        }
    }

    /// Runs one statement. Returns the first column of each row.
    ///
    /// # Panics
    /// If the database refuses it.
    pub async fn run(&self, sql: &str) -> Vec<String> {
        let rows = match self {
            Self::Sqlite(path) => by_rusqlite(path, sql).map_err(anyhow::Error::from),
            Self::Postgres(_) => by_postgres(&self.url(), sql).await.map_err(anyhow::Error::from),
            Self::Mariadb(name) => MARIADB.run(name, sql),
        };
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

fn by_rusqlite(path: &Path, sql: &str) -> rusqlite::Result<Vec<String>> {
    let database = rusqlite::Connection::open(path)?;
    database.busy_timeout(START)?;
    let mut statement = database.prepare(sql)?;
    if statement.column_count() == 0 {
        return statement.execute(()).map(|_| Vec::new());
    }
    statement.query_map((), |row| row.get(0))?.collect()
}

async fn by_postgres(url: &str, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let messages = client.simple_query(sql).await?;
    let value = |message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(value).collect())
}

/// A private MariaDB server.
struct Mariadb {
    port: u16,
    _server: Guarded,
}

impl Mariadb {
    /// Starts one and waits until it answers.
    fn start() -> Self {
        let (folder, port) = (folder("mariadb"), free_port());
        let data = folder.join("data");
        let as_other = as_user("mysql", &folder);
        let mut init = as_other(Path::new("mariadb-install-db"));
        init.current_dir(&folder).args(["--no-defaults", "--skip-test-db"]);
        init.arg("--auth-root-authentication-method=normal");
        init.arg(format!("--datadir={}", data.display()));
        succeed(init);
        let mut server = as_other(Path::new("/usr/sbin/mariadbd"));
        server.current_dir(&folder).args(["--no-defaults", "--bind-address=127.0.0.1"]);
        // Below the data. A whole path can be too long for a socket.
        server.arg("--socket=socket").arg(format!("--datadir={}", data.display()));
        server.arg(format!("--port={port}"));
        let mariadb = Self { port, _server: start(server) };
        let answers = poll(START, || mariadb.run("mysql", "SELECT 1").ok());
        assert!(answers.is_some(), "MariaDB didn't start:\n{}", output());
        mariadb
    }

    fn run(&self, database: &str, sql: &str) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--host=127.0.0.1", "--user=root", "--batch"]);
        command.arg("--skip-column-names").arg(format!("--port={}", self.port));
        let ran = command.args(["--execute", sql, database]).output()?;
        anyhow::ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        Ok(String::from_utf8(ran.stdout)?.lines().map(str::to_owned).collect())
    }
}

/// A private PostgreSQL server.
struct Postgres {
    port: u16,
    _server: Guarded,
}

impl Postgres {
    /// Starts one and waits until it answers.
    fn start() -> Self {
        let (folder, port) = (folder("postgres"), free_port());
        let data = folder.join("data");
        let as_other = as_user("postgres", &folder);
        let tool = |name: &str| {
            let path = newest(Path::new("/usr/lib/postgresql"), &format!("bin/{name}"));
            as_other(&path.unwrap_or_else(|error| panic!("{error}")))
        };
        let mut init = tool("initdb");
        init.current_dir(&folder).arg("-D").arg(&data);
        init.args(["-U", "zentra", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync"]);
        succeed(init);
        let mut server = tool("postgres");
        server.current_dir(&folder).arg("-D").arg(&data).args(["-p", &port.to_string()]);
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let postgres = Self { port, _server: start(server) };
        // It accepts connections before it answers queries.
        let answers = poll(START, || {
            let mut ask = tool("pg_isready");
            ask.args(["--quiet", "--host", "127.0.0.1", "--port", &port.to_string()]);
            ask.status().ok()?.success().then_some(())
        });
        assert!(answers.is_some(), "PostgreSQL didn't start:\n{}", output());
        postgres
    }
}

/// Runs programs as this user, who owns the folder, if this process is root: these servers refuse root.
fn as_user(user: &'static str, folder: &Path) -> impl Fn(&Path) -> Command + use<> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if is_root {
        let _ = Command::new("chown").arg(user).arg(folder).status();
    }
    move |program| {
        if !is_root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command.args(["--clear-groups", "--pdeathsig", "KILL"]).arg(program);
        command
    }
}

fn succeed(mut command: Command) {
    let ran = command.output().unwrap_or_else(|error| panic!("can't run {command:?}: {error}"));
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
}
