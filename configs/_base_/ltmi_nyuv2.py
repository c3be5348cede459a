# What the configs for NYUv2 have in common; datasets/nyuv2.py has their metrics.
ltmi_loss = dict(type='LTMILoss', class_prior='nyuv2')
