module.exports = ({ env }) => ({
  connection: {
    client: 'postgres',
    connection: { host: env('DB_HOST'), port: 5432, database: 'strapi', user: 'postgres', password: '' },
    pool: { min: 2, max: 10 },
  },
});
