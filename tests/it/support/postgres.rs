//! One Postgres for all tests of this process, a database for each.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use postrider::config::DatabaseUrl;
use postrider::store::Store;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use sqlx::Connection as _;
use tokio::sync::OnceCell;

/// What the folders' names begin with; the process that uses one follows.
const FOLDER: &str = "postrider-it-";

/// A Postgres server that ends with this process, however that ends: a shell
/// waits for its standard input to close.
pub(crate) struct Postgres {
    folder: PathBuf,
    port: u16,
    /// The shell, whose standard input is open as long as this is.
    _shell: Child,
}

impl Postgres {
    /// The server of this process.
    fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Postgres>> = OnceLock::new();
        let start = || {
            remove_leftovers();
            let name = format!("{FOLDER}{}", std::process::id());
            Arc::new(Self::start(std::env::temp_dir().join(name), None, None))
        };
        Arc::clone(SHARED.get_or_init(start))
    }

    /// A server in a folder of its own, which goes with it; with its log elsewhere,
    /// and no file of it larger than so many bytes.
    pub(crate) fn start(folder: PathBuf, wal: Option<&Path>, largest: Option<u64>) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let (uid, gid) = account();
        if let Some(wal) = wal {
            std::fs::create_dir_all(wal).unwrap();
            std::os::unix::fs::chown(wal, Some(uid), Some(gid)).unwrap();
        }
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
        let bin = binaries();
        let run = |command: &mut Command| {
            command.uid(uid).gid(gid).current_dir(&folder);
            for name in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE"] {
                command.env_remove(name);
            }
        };
        let mut initdb = Command::new(bin.join("initdb"));
        run(&mut initdb);
        let output = initdb
            .args([
                "-D",
                "data",
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
            ])
            .args(["--locale=C"])
            .args(wal.map(|wal| format!("--waldir={}", wal.display())))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );

        // A free port, so that tests can reach it over TCP, through a proxy too.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let script = format!(
            "{limit} '{bin}/postgres' -D data -p {port} -k '{folder}' -c listen_addresses=127.0.0.1 \
               -c max_connections=400 -c fsync=off -c shared_buffers=128MB \
               -c max_prepared_transactions=10 -c log_min_messages=fatal >log 2>&1 & \
             echo $! >pid; read _; kill -QUIT $!; wait $!; rm -rf '{folder}'",
            bin = bin.display(),
            // In blocks of 512 bytes.
            limit = largest.map_or(String::new(), |bytes| format!("ulimit -f {};", bytes / 512)),
            folder = folder.display(),
        );
        let mut shell = Command::new("sh");
        run(&mut shell);
        let shell = shell
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let postgres = Self {
            folder,
            port,
            _shell: shell,
        };
        postgres.wait_until_ready();
        postgres
    }

    fn wait_until_ready(&self) {
        let started = std::time::Instant::now();
        while !self.is_ready() {
            assert!(started.elapsed().as_secs() < 60, "Postgres did not start");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn is_ready(&self) -> bool {
        let pid_file = self.folder.join("data/postmaster.pid");
        std::fs::read_to_string(pid_file).is_ok_and(|text| {
            text.lines()
                .nth(7)
                .is_some_and(|line| line.trim() == "ready")
        })
    }

    /// The URL of a database on it.
    fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    /// A connection for looking behind the interface.
    async fn connect(&self, database: &str) -> sqlx::PgConnection {
        sqlx::PgConnection::connect(&self.url(database))
            .await
            .unwrap()
    }
}

/// A test's own database.
pub(crate) struct Database {
    postgres: Arc<Postgres>,
    pub(crate) name: String,
}

impl Database {
    /// With the schema in it.
    pub(crate) async fn migrated() -> Self {
        static TEMPLATE: OnceCell<()> = OnceCell::const_new();
        TEMPLATE
            .get_or_init(|| async {
                let template = Self::create("template_it", "template0").await;
                let store = template.store(Store::PARTITION_SIZE);
                store.migrate().await.unwrap();
                store.close().await;
            })
            .await;
        Self::create(&unique_name(), "template_it").await
    }

    /// With nothing in it.
    pub(crate) async fn empty() -> Self {
        Self::create(&unique_name(), "template0").await
    }

    /// On a server of the test's own, which goes with it.
    pub(crate) async fn alone(name: &str) -> Self {
        let name = format!("{FOLDER}{}-{name}", std::process::id());
        Self::on(Postgres::start(std::env::temp_dir().join(name), None, None)).await
    }

    /// On a server that was started with settings of the test's own.
    pub(crate) async fn on(postgres: Postgres) -> Self {
        Self::create_on(Arc::new(postgres), "it", "template0").await
    }

    async fn create(name: &str, template: &str) -> Self {
        Self::create_on(Postgres::shared(), name, template).await
    }

    async fn create_on(postgres: Arc<Postgres>, name: &str, template: &str) -> Self {
        let mut admin = postgres.connect("postgres").await;
        let statement = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut admin)
            .await
            .unwrap();
        Self {
            postgres,
            name: name.to_owned(),
        }
    }

    pub(crate) fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    /// The same for another role.
    pub(crate) fn url_as(&self, role: &str) -> String {
        let url = self.url();
        url.replace("postgres://postgres@", &format!("postgres://{role}@"))
    }

    pub(crate) fn store(&self, partition_size: i64) -> Store {
        let url: DatabaseUrl = self.url().parse().unwrap();
        Store::new(url.options(), 12, partition_size)
    }

    /// Does something behind the interface's back.
    pub(crate) async fn execute(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql)
            .execute(&mut self.connect().await)
            .await
            .unwrap();
    }

    /// A connection for looking behind the interface.
    pub(crate) async fn connect(&self) -> sqlx::PgConnection {
        self.postgres.connect(&self.name).await
    }

    /// The same as another role.
    pub(crate) async fn connect_as(&self, role: &str) -> sqlx::PgConnection {
        sqlx::PgConnection::connect(&self.url_as(role))
            .await
            .unwrap()
    }
}

/// Removes the folders of processes that are gone and whose shells were killed with
/// them: they may have gigabytes.
fn remove_leftovers() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
        let owner = owner.and_then(|rest| rest.split('-').next()?.parse().ok());
        if let Some(pid) = owner.and_then(Pid::from_raw)
            && test_kill_process(pid) == Err(Errno::SRCH)
        {
            // Or by another suite, at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("it_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Postgres refuses to run as root.
fn account() -> (u32, u32) {
    let user = |name: &str| {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
    };
    if rustix::process::geteuid().is_root() {
        user("postgres").or_else(|| user("nobody")).unwrap()
    } else {
        (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    }
}

/// Where the server's programs are, the newest version first.
fn binaries() -> PathBuf {
    let mut folders: Vec<PathBuf> = std::env::var_os("POSTRIDER_PG_BIN")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    for root in ["/usr/lib/postgresql", "/usr"] {
        let mut versions: Vec<PathBuf> = std::fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
    }
    folders
        .into_iter()
        .find(|folder| Path::new(folder).join("initdb").exists())
        .expect("Postgres' server programs are installed: `make setup`")
}
