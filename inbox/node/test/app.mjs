// The application of the shared suite (tests/tests/all/inbox.rs).
import { createServer } from 'node:http';
import { Inbox, Permanent, mysql, postgres, sqlite } from 'zentra-inbox';

const { DATABASE, PORT, SECRETS, STORE } = process.env;

// Each database: its store, and how a handler runs a statement.
const databases = {
  async sqlite() {
    const { default: Database } = await import('better-sqlite3');
    return [sqlite(new Database(DATABASE)), (database, sql, values = []) => database.prepare(sql).run(values)];
  },
  async postgres() {
    const { default: pg } = await import('pg');
    const pool = new pg.Pool({ connectionString: DATABASE });
    const numbered = (sql) => sql.replace('?', '$1');
    return [postgres(pool), (client, sql, values) => client.query(numbered(sql), values)];
  },
  async mysql() {
    const { createPool } = await import('mysql2/promise');
    return [mysql(createPool(DATABASE)), (connection, sql, values) => connection.query(sql, values)];
  },
};

const [store, run] = await databases[STORE]();
const inbox = new Inbox({ secrets: SECRETS.split(' '), store, onError: (error) => console.error(error.message) });
await inbox.create();

async function handle(event, transaction) {
  await run(transaction, 'INSERT INTO effect (event_key) VALUES (?)', [event.key]);
  dieIf(event.headers, 'before the commit');
  switch (event.json().then) {
    case 'is permanent':
      throw new Permanent('no such account');
    case 'fails':
      throw new Error('the ledger is closed');
    case 'rolls back':
      await run(transaction, 'ROLLBACK');
      break;
    case 'goes on after an error':
      try {
        await run(transaction, 'INSERT INTO no_such_table (a) VALUES (1)');
      } catch {
        // PostgreSQL has given the transaction up.
      }
  }
}

function dieIf(headers, moment) {
  if (headers['x-test-die'] === moment) process.kill(process.pid, 'SIGKILL');
}

createServer(async (request, response) => {
  const { status, text } = await inbox.receive(request.headers, request, handle);
  dieIf(request.headers, 'after the commit');
  response.writeHead(status, { 'content-type': 'text/plain' }).end(text);
}).listen(PORT, '127.0.0.1');
