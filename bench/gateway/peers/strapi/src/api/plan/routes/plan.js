module.exports = require('@strapi/strapi').factories.createCoreRouter('api::plan.plan');
