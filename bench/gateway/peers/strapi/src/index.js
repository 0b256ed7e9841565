// At the first start: three plans with a price each that anybody may list, and one person who may read their own record.
const PLANS = [['black-card-1m', 1, 1990], ['black-card-3m', 3, 4900], ['black-card-12m', 12, 18900]];

module.exports = {
  register() {},
  async bootstrap({ strapi }) {
    if (await strapi.db.query('api::plan.plan').count()) return;
    for (const [code, months, amount] of PLANS) {
      const plan = await strapi.documents('api::plan.plan').create({
        data: { code, name: code, months, active: true, benefits: ['member_lessons', 'live_replay'] },
      });
      await strapi.documents('api::price.price').create({
        data: { version: 1, amount, currency: 'CNY', plan: plan.documentId },
      });
    }
    const role = (type) => strapi.db.query('plugin::users-permissions.role').findOne({ where: { type } });
    const allow = (action, to) =>
      strapi.db.query('plugin::users-permissions.permission').create({ data: { action, role: to.id } });
    const [anybody, person] = [await role('public'), await role('authenticated')];
    await allow('api::plan.plan.find', anybody);
    await allow('api::price.price.find', anybody);
    await strapi.plugin('users-permissions').service('user').add({
      username: 'bench', email: process.env.ADMIN_EMAIL, password: process.env.ADMIN_PASSWORD,
      provider: 'local', confirmed: true, blocked: false, role: person.id,
    });
  },
};
