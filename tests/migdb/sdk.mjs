// What the stand-in for the balena API has to answer, asked by balena's own client.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [folder, apiUrl, token] = process.argv.slice(2);
const { getSdk } = createRequire(`${folder}/`)('balena-sdk');
const sdk = getSdk({ apiUrl, dataDirectory: false });

await sdk.auth.loginWithToken(token);
assert.equal(await sdk.auth.isLoggedIn(), true);
const who = await sdk.auth.getUserInfo();
assert.equal(who.username, 'admin');

const fleet = await sdk.models.application.get('admin/fleet1', { $select: ['id', 'slug'] });
assert.deepEqual([fleet.id, fleet.slug], [1, 'admin/fleet1']);
const type = await sdk.models.deviceType.get('genericx86-64-ext', { $select: ['id', 'slug'] });
assert.equal(type.id, 117);
assert.match(await sdk.models.application.generateProvisioningKey({ slugOrUuidOrId: 1, keyExpiryDate: '2099-01-01' }), /^key-/);

const uuid = sdk.models.device.generateUniqueKey();
const made = await sdk.models.device.register(1, uuid);
assert.equal(made.uuid, uuid);
await assert.rejects(sdk.models.device.register(1, uuid), /must be unique/);
const device = await sdk.models.device.get(uuid, { $select: ['id', 'uuid', 'api_heartbeat_state', 'os_version'] });
assert.deepEqual([device.id, device.uuid, device.api_heartbeat_state, device.os_version], [made.id, uuid, 'unknown', null]);
assert.match(await sdk.models.device.generateDeviceKey(uuid), /./);

const config = await sdk.models.os.getConfig(1, { version: '6.0.0', network: 'ethernet', appUpdatePollInterval: 10 });
assert.equal(config.applicationId, 1);
assert.equal(config.appUpdatePollInterval, '600000');

await sdk.models.device.remove(uuid);
await assert.rejects(sdk.models.device.get(uuid), /Device not found/);

const stranger = getSdk({ apiUrl, dataDirectory: false });
await stranger.auth.loginWithToken('wrong').catch(() => {});
assert.equal(await stranger.auth.isLoggedIn(), false);
console.log('the client takes the stand-in for the API');
