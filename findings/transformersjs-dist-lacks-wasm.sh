#!/bin/sh
# @huggingface/transformers 4.3.1 (transformers.js): its folder `dist`, served
# as it is, cannot run a model in a browser without a network. Its scripts ask
# for ort-wasm-simd-threaded.asyncify.mjs and then for .asyncify.wasm, by
# default from a CDN. With `wasmPaths` set to `dist`, they ask for them there;
# but of onnxruntime's files, `dist` has only ort-wasm-simd-threaded.jsep.mjs,
# which no script in it names. The files are in the folder of onnxruntime-web
# that npm installs with it.
#
# It needs npm and Chromium, and the port 8977.
#
# Observed (Chromium 156, Linux x86-64), asked for and not found:
#     GET /@huggingface/transformers/dist/ort-wasm-simd-threaded.asyncify.mjs
set -eu
folder=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts \
    @huggingface/transformers@4.3.1
cd node_modules
dist=@huggingface/transformers/dist
echo "in $dist:" "$(cd "$dist" && ls ort-*)"
echo "in onnxruntime-web/dist:" "$(cd onnxruntime-web/dist && ls ort-*async*)"
# Whether the scripts in `dist` name what is there.
! grep -qF ort-wasm-simd-threaded.jsep.mjs "$dist"/transformers*

mkdir -p models/tiny/onnx
echo '{"model_type": "bert"}' >models/tiny/config.json
echo 'not read before the runtime is there' >models/tiny/onnx/model.onnx
cat >page.html <<'HTML'
<!doctype html><script type="module">
import {AutoModel, env} from "./@huggingface/transformers/dist/transformers.min.js";
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = "/models/";
env.useBrowserCache = false;
const dist = new URL("@huggingface/transformers/dist/", location.href);
env.backends.onnx.wasm.wasmPaths = dist.href;
await AutoModel.from_pretrained("tiny", {dtype: "fp32", device: "wasm"});
</script>
HTML
python3 -m http.server 8977 --bind 127.0.0.1 >/dev/null 2>requests &
server=$!
sleep 2
chromium --headless --no-sandbox --disable-gpu --no-first-run \
    --disable-background-networking --virtual-time-budget=20000 \
    --dump-dom http://127.0.0.1:8977/page.html >/dev/null 2>&1
echo "asked for and not found:"
grep -o 'GET .*ort-wasm.* 404' requests
grep -qF 'asyncify.mjs HTTP/1.1" 404' requests
