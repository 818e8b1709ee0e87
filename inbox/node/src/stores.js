/**
 * Stores of keys. `once(key, work)` begins a transaction, stores the key and, if it is new, runs `work` with the
 * transaction. Before the commit it looks whether the key is still there: a database that has rolled back on its own
 * (an error that the handler caught, a deadlock) must not be taken for a commit.
 */

/** Old keys are removed by this many at a time, so that nothing waits long for a lock. */
const PORTION = 10_000;

/** PostgreSQL: a `Pool` of `pg`. The handler receives its client. */
export function postgres(pool) {
  return {
    create: () =>
      pool.query(
        // One process at a time: IF NOT EXISTS fails if two create it at once.
        'SELECT pg_advisory_xact_lock(8172); ' +
          'CREATE TABLE IF NOT EXISTS zentra_inbox (key text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now()); ' +
          'CREATE INDEX IF NOT EXISTS zentra_inbox_at ON zentra_inbox (at)',
      ),
    async once(key, work) {
      const client = await pool.connect();
      let broken = true;
      try {
        await client.query('BEGIN');
        const insert = 'INSERT INTO zentra_inbox (key) VALUES ($1) ON CONFLICT DO NOTHING';
        const isNew = (await client.query(insert, [key])).rowCount === 1;
        if (isNew) {
          await work(client);
          const select = 'SELECT 1 FROM zentra_inbox WHERE key = $1';
          isStored((await client.query(select, [key])).rowCount);
        }
        await client.query('COMMIT');
        broken = false;
        return isNew;
      } catch (error) {
        await client.query('ROLLBACK').then(() => (broken = false), () => {});
        throw error;
      } finally {
        client.release(broken);
      }
    },
    forget: (seconds) => {
      const remove =
        'DELETE FROM zentra_inbox WHERE key IN (SELECT key FROM zentra_inbox ' +
        'WHERE at < now() - make_interval(secs => $1) ORDER BY at LIMIT $2)';
      return inPortions(async () => (await pool.query(remove, [seconds, PORTION])).rowCount);
    },
  };
}

/** MySQL and MariaDB: a pool of `mysql2/promise`. The handler receives its connection. */
export function mysql(pool) {
  return {
    create: () =>
      // Bytes: the collations of text would take two keys for one.
      pool.query(
        'CREATE TABLE IF NOT EXISTS zentra_inbox (`key` VARBINARY(512) PRIMARY KEY, ' +
          'at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, INDEX (at)) ENGINE = InnoDB',
      ),
    async once(key, work) {
      const connection = await pool.getConnection();
      let broken = true;
      try {
        await connection.beginTransaction();
        const insert = 'INSERT INTO zentra_inbox (`key`) VALUES (?)';
        const isNew = await connection.query(insert, [key]).then(
          () => true,
          (error) => {
            if (error.code === 'ER_DUP_ENTRY') return false;
            throw error;
          },
        );
        if (isNew) {
          await work(connection);
          const [rows] = await connection.query('SELECT 1 FROM zentra_inbox WHERE `key` = ?', [key]);
          isStored(rows.length);
        }
        await connection.commit();
        broken = false;
        return isNew;
      } catch (error) {
        await connection.rollback().then(() => (broken = false), () => {});
        throw error;
      } finally {
        if (broken) connection.destroy();
        else connection.release();
      }
    },
    forget: (seconds) => {
      const remove =
        'DELETE FROM zentra_inbox WHERE at < CURRENT_TIMESTAMP - INTERVAL ? SECOND ORDER BY at LIMIT ?';
      return inPortions(async () => (await pool.query(remove, [seconds, PORTION]))[0].affectedRows);
    },
  };
}

/**
 * SQLite: a `Database` of `better-sqlite3` that nothing else writes by: whatever is written while a handler runs is
 * part of its transaction. Handlers run one by one.
 */
export function sqlite(database) {
  let last = Promise.resolve();
  const alone = (work) => {
    const done = last.then(work);
    last = done.catch(() => {});
    return done;
  };
  return {
    async create() {
      database.exec(
        'CREATE TABLE IF NOT EXISTS zentra_inbox (key TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID; ' +
          'CREATE INDEX IF NOT EXISTS zentra_inbox_at ON zentra_inbox (at)',
      );
    },
    once: (key, work) =>
      alone(async () => {
        try {
          database.exec('BEGIN IMMEDIATE');
          const insert = 'INSERT INTO zentra_inbox (key, at) VALUES (?, unixepoch()) ON CONFLICT DO NOTHING';
          const isNew = database.prepare(insert).run(key).changes === 1;
          if (isNew) {
            await work(database);
            isStored(database.prepare('SELECT 1 FROM zentra_inbox WHERE key = ?').all(key).length);
          }
          database.exec('COMMIT');
          return isNew;
        } catch (error) {
          if (database.inTransaction) database.exec('ROLLBACK');
          throw error;
        }
      }),
    forget: (seconds) => {
      const remove =
        'DELETE FROM zentra_inbox WHERE key IN (SELECT key FROM zentra_inbox ' +
        'WHERE at < unixepoch() - ? ORDER BY at LIMIT ?)';
      return inPortions(() => alone(async () => database.prepare(remove).run(seconds, PORTION).changes));
    },
  };
}

async function inPortions(remove) {
  while ((await remove()) === PORTION);
}

function isStored(rows) {
  if (rows !== 1) throw new Error('the database has rolled the transaction back: nothing was written');
}
