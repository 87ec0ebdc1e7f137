# Two MLPs in ONNX files, a kernel on disk, a machine on it, a service.
set -e
cp "$(dirname "$0")"/engineer_*.py .
python engineer_networks.py
# a classifier of scikit-learn ends with labels and probabilities: npk says what to choose
npk inspect sklearn.onnx --data fresh.npz 2> said.txt || cat said.txt
OUTPUT=$(grep -oP -- '--output \K\w+' said.txt)
npk inspect sklearn.onnx --output "$OUTPUT" --data fresh.npz
npk kernel sklearn.onnx --output "$OUTPUT" --data 'fresh.npz[:600]' --scale cosine --out K.zarr
python -c "import numpy as np; np.save('labels600.npy', np.load('labels.npy')[:600])"
npk fit K.zarr --labels labels600.npy
npk fit torch.onnx --data fresh.npz --labels labels.npy
python engineer_service.py
