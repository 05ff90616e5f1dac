-- HAProxy asks Keywright before it passes a request on. Made by: keywright gateway config haproxy-lua
-- Beside it belongs: keywright gateway config haproxy > haproxy.cfg. Why each line is here: docs/gateways.md.

local DOOR = "http://@KEYWRIGHT@/authz/forward/@GATE@"
-- Where keys come in. They go to Keywright, with all their values, and to nobody else: if the application has an
-- Authorization of its own, keep it out of the second loop below, and use another scheme.
local CARRIERS = {
    "@carrier@",
}
local ASKED = { "user-agent", "origin", "sec-fetch-site", "x-request-id" }
-- Whose key it was.
local IDENTITY = {
    "x-keywright-@identity@",
}
-- What the client of a refused request is told, besides status and body.
local TOLD = { "cache-control", "content-type", "retry-after", "www-authenticate", "ratelimit", "ratelimit-policy" }

local function each(values, act)
    for i = 0, values and #values or -1 do act(values[i]) end
end

local function question(txn)
    local there, said = txn.http:req_get_headers(), {}
    for _, names in ipairs({ CARRIERS, ASKED }) do
        for _, name in ipairs(names) do
            each(there[name], function(value)
                said[name] = said[name] or {}
                table.insert(said[name], value)
            end)
        end
    end
    -- What is asked about: raw, as the client sent it. A client's own headers of these names are not looked at.
    said["x-forwarded-method"] = { txn.sf:method() }
    said["x-forwarded-uri"] = { txn.sf:pathq() }
    said["x-forwarded-for"] = { txn.sf:src() }
    said["x-forwarded-proto"] = { txn.sf:ssl_fc() == 1 and "https" or "http" }
    return said
end

local function unavailable(txn)
    local reply = txn:reply()
    reply:set_status(503)
    reply:add_header("content-type", "application/problem+json")
    reply:add_header("retry-after", "1")
    reply:set_body('{"title": "Unavailable", "status": 503, "code": "unavailable"}')
    txn:done(reply)
end

core.register_action("keywright", { "http-req" }, function(txn)
    local asked, answer = pcall(function()
        return core.httpclient():get{ url = DOOR, headers = question(txn), timeout = 2000 }
    end)
    if not asked or not answer or not answer.status or answer.status == 0 then
        return unavailable(txn)  -- nothing is let through
    end
    if answer.status ~= 200 then
        local reply = txn:reply()
        reply:set_status(answer.status)
        for _, name in ipairs(TOLD) do
            each(answer.headers[name], function(value) reply:add_header(name, value) end)
        end
        reply:set_body(txn.sf:method() == "HEAD" and "" or answer.body or "")
        txn:done(reply)
        return
    end
    for _, name in ipairs(IDENTITY) do
        txn.http:req_del_header(name)  -- what a client sent under these names is gone
        each(answer.headers[name], function(value) txn.http:req_add_header(name, value) end)
    end
    for _, name in ipairs(CARRIERS) do
        txn.http:req_del_header(name)
    end
    each(answer.headers["ratelimit"], function(value) txn:set_var("txn.keywright_limit", value) end)
    each(answer.headers["ratelimit-policy"], function(value) txn:set_var("txn.keywright_policy", value) end)
end, 0)
