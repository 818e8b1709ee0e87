// Compiled only: the declared types fit the databases' own.
import { createServer } from 'node:http';
import Database from 'better-sqlite3';
import { createPool } from 'mysql2/promise';
import { Pool } from 'pg';
import { Answer, Inbox, Permanent, mysql, postgres, sqlite } from 'zentra-inbox';

const secrets = ['whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'];
const onPostgres = new Inbox({ secrets, store: postgres(new Pool()) });
const onMysql = new Inbox({ secrets, store: mysql(createPool('mysql://localhost')), retentionDays: 90 });
const onSqlite = new Inbox({ secrets, store: sqlite(new Database(':memory:')), tolerance: 60, maxBody: 1000 });

createServer(async (request, response) => {
  const answer: Answer = await onPostgres.receive(request.headers, request, async (event, client) => {
    await client.query('INSERT INTO ledger (transfer) VALUES ($1)', [event.key]);
  });
  response.writeHead(answer.status).end(answer.text);
});

export async function receive(request: Request): Promise<Response> {
  const body = Buffer.from(await request.arrayBuffer());
  await onMysql.receive(request.headers, body, async (event, connection) => {
    await connection.query('INSERT INTO ledger (transfer) VALUES (?)', [event.key]);
  });
  const { status, text } = await onSqlite.receive(request.headers, body, (event, database) => {
    if (event.type === undefined) throw new Permanent('no type');
    database.prepare('INSERT INTO ledger (transfer) VALUES (?)').run(event.key);
  });
  return new Response(text, { status });
}

// @ts-expect-error: a parsed body has no bytes to verify.
void onPostgres.receive({}, { parsed: true }, () => {});
// @ts-expect-error: a store is needed.
void new Inbox({ secrets });
