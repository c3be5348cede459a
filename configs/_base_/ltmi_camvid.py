# What the configs for CamVid have in common; datasets/camvid.py has their metrics.
ltmi_loss = dict(type='LTMILoss', class_prior='camvid')
