// Fastify and MySQL or MariaDB.
import Fastify from 'fastify';
import { createPool } from 'mysql2/promise';
import { Inbox, mysql } from 'zentra-inbox';

const inbox = new Inbox({
  secrets: [process.env.LEDGER_SIGNING],
  store: mysql(createPool(process.env.DATABASE)),
});
await inbox.create();

const app = Fastify();
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', { parseAs: 'buffer' }, async (request, body) => body);
app.post('/webhooks', async (request, reply) => {
  const { status, text } = await inbox.receive(request.headers, request.body, async (event, connection) => {
    await connection.query('INSERT INTO ledger (transfer) VALUES (?)', [event.json().id]);
  });
  return reply.code(status).send(text);
});
await app.listen({ host: '127.0.0.1', port: process.env.PORT });
