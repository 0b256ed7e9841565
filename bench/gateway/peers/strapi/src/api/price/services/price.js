module.exports = require('@strapi/strapi').factories.createCoreService('api::price.price');
