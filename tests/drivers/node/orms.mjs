// What an ORM of Node does before its program does anything, and then the least of that.
//
// Usage: node orms.mjs MODULES sequelize|knex|typeorm|prisma. Each connects, looks at what
// is there, makes its tables `orm_*`, and writes and reads one row. What each line must say
// is in tests/it/orms.rs.
//
// Prisma's client is made from a schema by a program that downloads an engine; what it made
// is `prisma.json`, for the schema that is in it (`npx prisma generate`, 7.10.0). Its
// migrations need that engine, so its table is made by a statement.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, which] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const ssl = { ca: readFileSync(process.env.HOLDPOINT_CA), servername: "localhost" };
const place = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  database: "shop",
  password: process.env.PGPASSWORD,
  ssl,
};
const say = (...words) => console.log(words.join(" "));
const KEY = `SELECT column_name FROM information_schema.key_column_usage
  JOIN information_schema.table_constraints USING (constraint_name, table_name)
  WHERE constraint_type = 'PRIMARY KEY' AND table_name = 'invoices'`;
const TABLES = `SELECT table_name FROM information_schema.tables
  WHERE table_schema = current_schema() ORDER BY table_name`;

async function sequelize() {
  const { Sequelize, DataTypes } = require("sequelize");
  const orm = new Sequelize("shop", "agent", place.password, {
    ...place,
    dialect: "postgres",
    dialectModule: require("pg"),
    dialectOptions: { ssl },
    logging: false,
  });
  await orm.authenticate();
  const tables = await orm.getQueryInterface().showAllTables();
  say("tables", ...tables.map((table) => table.tableName ?? table).sort());
  const columns = await orm.getQueryInterface().describeTable("invoices");
  say("columns", ...Object.keys(columns));
  say("key", ...Object.keys(columns).filter((name) => columns[name].primaryKey));
  const fields = { id: { type: DataTypes.INTEGER, primaryKey: true }, customer: DataTypes.TEXT };
  const Invoice = orm.define("invoice", fields, { tableName: "invoices", timestamps: false });
  say("rows", await Invoice.count());
  say("rows", await orm.transaction((transaction) => Invoice.count({ transaction })));
  const text = { type: DataTypes.TEXT, allowNull: false };
  const options = { tableName: "orm_notes", indexes: [{ fields: ["text"] }] };
  const Note = orm.define("note", { text }, options);
  await Note.sync();
  await Note.sync({ alter: { drop: false } });
  const note = await Note.create({ text: "made" });
  await note.update({ text: "changed" });
  const found = await Note.findByPk(note.id);
  await orm.transaction((transaction) => note.destroy({ transaction }));
  say("note", found.id, found.text, await Note.count());
  await orm.close();
}

async function knex() {
  const orm = require("knex")({
    client: "pg",
    connection: { ...place, user: "agent" },
    pool: { min: 0, max: 2 },
  });
  if (!(await orm.schema.hasTable("invoices"))) throw new Error("no table");
  say("tables", ...(await orm.raw(TABLES)).rows.map((row) => row.table_name));
  say("columns", ...Object.keys(await orm("invoices").columnInfo()));
  say("key", ...(await orm.raw(KEY)).rows.map((row) => row.column_name));
  const count = async (from) => Number((await from("invoices").count()).at(0).count);
  say("rows", await count(orm));
  say("rows", await orm.transaction(count));
  const create = (table) => {
    table.increments();
    table.text("text").notNullable().index();
    table.timestamps(true, true);
  };
  const migration = {
    up: (schema) => schema.schema.createTable("orm_notes", create),
    down: (schema) => schema.schema.dropTable("orm_notes"),
  };
  const migrationSource = {
    getMigrations: async () => ["notes"],
    getMigrationName: (name) => name,
    getMigration: async () => migration,
  };
  await orm.migrate.latest({ migrationSource, tableName: "orm_migrations" });
  await orm.migrate.latest({ migrationSource, tableName: "orm_migrations" });
  const [{ id }] = await orm("orm_notes").insert({ text: "made" }).returning("id");
  await orm("orm_notes").where({ id }).update({ text: "changed" });
  const found = await orm("orm_notes").where({ id }).first();
  await orm.transaction((inside) => inside("orm_notes").where({ id }).del());
  const left = await orm("orm_notes").count();
  say("note", found.id, found.text, left[0].count);
  await orm.destroy();
}

async function typeorm() {
  const { DataSource, EntitySchema } = require("typeorm");
  const Invoice = new EntitySchema({
    name: "invoices",
    synchronize: false,
    columns: { id: { type: Number, primary: true }, customer: { type: "text" } },
  });
  const Note = new EntitySchema({
    name: "orm_notes",
    columns: {
      id: { type: Number, primary: true, generated: true },
      text: { type: "text" },
      at: { type: "timestamptz", createDate: true },
    },
    indices: [{ name: "orm_notes_text", columns: ["text"] }],
  });
  class Made1700000000000 {
    name = "Made1700000000000";
    up = (runner) => runner.query(`CREATE TABLE "orm_made" ("id" SERIAL PRIMARY KEY)`);
    down = (runner) => runner.query(`DROP TABLE "orm_made"`);
  }
  const orm = new DataSource({
    ...place,
    type: "postgres",
    username: "agent",
    entities: [Invoice, Note],
    migrations: [Made1700000000000],
    migrationsTableName: "orm_migrations",
    installExtensions: false,
  });
  await orm.initialize();
  const runner = orm.createQueryRunner();
  const table = await runner.getTable("invoices");
  say("tables", ...(await runner.query(TABLES)).map((row) => row.table_name));
  say("columns", ...table.columns.map((column) => column.name));
  say("key", ...table.primaryColumns.map((column) => column.name));
  await runner.release();
  const invoices = orm.getRepository("invoices");
  say("rows", await invoices.count());
  say("rows", await orm.transaction((inside) => inside.getRepository("invoices").count()));
  await orm.runMigrations();
  await orm.synchronize();
  await orm.synchronize();
  const notes = orm.getRepository("orm_notes");
  const note = await notes.save({ text: "made" });
  await notes.save({ ...note, text: "changed" });
  const found = await notes.findOneBy({ id: note.id });
  await notes.remove(found);
  say("note", note.id, found.text, await notes.count());
  await orm.destroy();
}

async function prisma() {
  const runtime = await load("@prisma/client/runtime/client");
  const { PrismaPg } = await load("@prisma/adapter-pg");
  const config = JSON.parse(readFileSync(new URL("prisma.json", import.meta.url)));
  const compiler = "@prisma/client/runtime/query_compiler_fast_bg.postgresql";
  config.compilerWasm = {
    getRuntime: () => load(`${compiler}.mjs`),
    getQueryCompilerWasmModule: async () => {
      const { wasm } = await load(`${compiler}.wasm-base64.mjs`);
      return new WebAssembly.Module(Buffer.from(wasm, "base64"));
    },
    importName: "./query_compiler_fast_bg.js",
  };
  const Client = runtime.getPrismaClient(config);
  const orm = new Client({ adapter: new PrismaPg({ ...place, user: "agent" }) });
  say("tables", ...(await orm.$queryRawUnsafe(TABLES)).map((row) => row.table_name));
  say("columns", ...Object.keys(await orm.invoice.findFirst()));
  say("key", ...(await orm.$queryRawUnsafe(KEY)).map((row) => row.column_name));
  say("rows", await orm.invoice.count());
  say("rows", await orm.$transaction((inside) => inside.invoice.count()));
  await orm.$executeRawUnsafe("CREATE TABLE orm_notes (id serial PRIMARY KEY, text text NOT NULL)");
  const { id } = await orm.note.create({ data: { text: "made" } });
  await orm.note.update({ where: { id }, data: { text: "changed" } });
  const found = await orm.note.findUnique({ where: { id } });
  await orm.$transaction([orm.note.delete({ where: { id } }), orm.note.findMany()]);
  say("note", found.id, found.text, await orm.note.count());
  await orm.$disconnect();
}

await { sequelize, knex, typeorm, prisma }[which]();
