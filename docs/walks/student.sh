# What have the gates of my own ResNet learnt?
set -e
cp "$(dirname "$0")/resnet20.py" .
python resnet20.py
# the trap: raw pixels, which the network has never seen
npk inspect resnet20.pt --arch resnet20.py:resnet20 --data fresh.npz --scale-pixels 1
# what it was trained on
npk study resnet20.pt --arch resnet20.py:resnet20 --data fresh.npz --fresh \
    --scale-pixels 1 --mean 4.9 --std 6 --n 30,100 --out study
