module.exports = require('@strapi/strapi').factories.createCoreRouter('api::price.price');
