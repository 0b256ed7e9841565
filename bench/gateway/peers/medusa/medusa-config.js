const { defineConfig } = require('@medusajs/framework/utils');

module.exports = defineConfig({
  projectConfig: {
    databaseUrl: process.env.DATABASE_URL,
    // It would insist on TLS, which a socket has not.
    databaseDriverOptions: { ssl: false, connection: { ssl: false } },
    http: {
      jwtSecret: 'bench-jwt-secret', cookieSecret: 'bench-cookie-secret',
      storeCors: 'http://localhost', adminCors: 'http://localhost', authCors: 'http://localhost',
    },
  },
  admin: { disable: true },
});
